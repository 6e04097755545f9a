"""`model.remat="auto"`: the least work that fits, chosen once and kept in the run's config."""

import json
import pathlib
from typing import Any

import pytest

from tests.tiny import tiny_config
from tpdiff_jax.devices import processes
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.experiment.remat_field import with_saved_choices
from tpdiff_jax.plan import PlanFlags, plan
from tpdiff_jax.planning import topology
from tpdiff_jax.planning.program_cost import DoesNotFit
from tpdiff_jax.run_folder.run_config import check_same_run, load_config
from tpdiff_jax.training import remat_choice
from tpdiff_jax.training.remat_choice import (
    build_for_training,
    build_with_remat,
    choose_remat,
    peak_bytes,
)
from tpdiff_jax.training.training_folder import keep_config

GIB = 2.0**30
PEAKS = {"none": 100 * GIB, "dots": 60 * GIB, "full": 30 * GIB}


@pytest.mark.parametrize(
    ("memory", "policy", "compiled"),
    [
        (120 * GIB, "none", ["none"]),
        (100 * GIB, "none", ["none"]),
        (99 * GIB, "dots", ["none", "dots"]),
        (60 * GIB, "dots", ["none", "dots"]),
        (31 * GIB, "full", ["none", "dots", "full"]),
        (1 * GIB, "full", ["none", "dots", "full"]),
    ],
)
def test_the_least_work_that_fits_is_chosen(memory, policy, compiled):
    choice = choose_remat(PEAKS.__getitem__, memory)
    assert choice.policy == policy and list(choice.needed_bytes) == compiled
    assert choice.memory_bytes == memory
    for name in compiled:
        assert f"{name} {PEAKS[name] / GIB:.2f} GiB" in choice.reason
    assert ("does not fit" in choice.reason) == (memory < PEAKS["full"])


@pytest.mark.parametrize(
    ("needed", "told"), [(None, "more than there is"), (80 * GIB, "80.00 GiB")]
)
def test_a_policy_that_the_compiler_refuses_is_passed_over(needed, told):
    def peak_of(policy: str) -> float:
        if policy == "none":
            raise DoesNotFit("out of memory", needed)
        return PEAKS[policy]

    choice = choose_remat(peak_of, 70 * GIB)
    assert choice.policy == "dots" and f"none {told}" in choice.reason


def test_without_a_known_memory_nothing_is_compiled_and_everything_kept():
    choice = choose_remat({}.__getitem__, None)
    assert choice.policy == "none" and "not known" in choice.reason and not choice.needed_bytes


def test_all_processes_take_the_policy_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remat_choice.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "broadcast_one_to_all", lambda _: 2)
    assert choose_remat(PEAKS.__getitem__, 70 * GIB).policy == "full"


def auto_config(**overrides: Any) -> Any:
    return tiny_config(model__remat="auto", **overrides)


def peak_by_policy(experiment: Any) -> float:
    return PEAKS[experiment.network.config.remat]


@pytest.mark.parametrize(("memory", "policy"), [(200, "none"), (70, "dots"), (40, "full")])
def test_a_run_keeps_the_policy_and_chooses_it_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, memory: float, policy: str
) -> None:
    config = auto_config()
    monkeypatch.setattr(remat_choice, "peak_bytes", peak_by_policy)
    monkeypatch.setattr(remat_choice, "device_memory", lambda device: memory * GIB)
    assert with_saved_choices(config, tmp_path) is config
    experiment = build_for_training(config)
    assert experiment.network.config.remat == experiment.config.model.remat == policy
    assert config.model.remat == "auto"
    keep_config(experiment, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model"]["remat"] == policy
    monkeypatch.setattr(remat_choice, "choose_remat", None)  # a start that goes on asks nobody
    again = build_for_training(with_saved_choices(config, tmp_path))
    check_same_run(load_config(tmp_path), again.config)
    given = tiny_config(model__remat="dots")
    assert with_saved_choices(given, tmp_path) is given


def test_a_given_policy_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remat_choice, "choose_remat", None)
    for policy in ("none", "dots", "offload", "full"):
        config = tiny_config(model__remat=policy)
        experiment, choice = build_with_remat(config, build_experiment, 1.0)
        assert choice is None and experiment.config is config


def test_where_nothing_trains_the_word_keeps_everything() -> None:
    experiment = build_experiment(auto_config())
    assert experiment.network.config.remat == experiment.config.model.remat == "none"


def test_another_word_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"model\.remat is 'outo'; allowed: .*'auto'"):
        build_for_training(tiny_config(model__remat="outo"))


ONE_STAGE = {"pyramid__frame_strides": (1,), "sample__num_steps": 1, "model__depth": 4}


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_anew")
def test_the_compiler_says_what_a_policy_needs_and_the_plan_says_why(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    none, full = (
        peak_bytes(build_experiment(tiny_config(model__remat=policy, **ONE_STAGE)))
        for policy in ("none", "full")
    )
    assert full < none
    monkeypatch.setattr(topology.Target, "memory_bytes", property(lambda _: none - 1))
    flags = PlanFlags(topology="local", search_batch=False)
    content = json.loads(plan(auto_config(**ONE_STAGE), tmp_path, flags).read_text())
    chosen = content["remat"]["policy"]
    assert chosen in ("dots", "full") and content["config"]["model"]["remat"] == chosen
    assert content["remat"]["needed_bytes"]["none"] == none
    assert content["stages"][0]["needed_bytes"] == content["remat"]["needed_bytes"][chosen] < none
    assert f"model.remat: {chosen} is the least work that fits" in capsys.readouterr().out
