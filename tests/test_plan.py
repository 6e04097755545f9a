"""--mode=plan as a user runs it: files, exit codes, and what two machines are told."""

import importlib.util
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from configs import dit_2b
from tests.report.report_files import PAPER
from tests.test_main import FLOW, run_main
from tests.tiny import flags_of_sizes, tiny_config
from tpdiff_jax import plan as planning
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.experiment.experiment import Program
from tpdiff_jax.plan import PlanFlags, Planner, plan, state_bytes
from tpdiff_jax.planning import topology
from tpdiff_jax.planning.topology import open_target
from tpdiff_jax.training.initial_state import abstract_train_state

pytestmark = pytest.mark.usefixtures("compiled_anew")

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"
)
FULL_RATE = {"pyramid__frame_strides": (1,), "sample__num_steps": 1}


def test_a_plan_for_this_machine_holds_every_figure(tmp_path: pathlib.Path) -> None:
    config = tiny_config(**FULL_RATE)
    path = plan(config, tmp_path, PlanFlags(topology="local", num_clips=100))
    content = json.loads(path.read_text())
    experiment = build_experiment(config)
    (stage,), sampler = content["stages"], content["sampler"]
    assert stage["tokens_per_clip"] == 8 * 4 * 4
    assert stage["tokens"] == 8 * stage["tokens_per_clip"]
    assert stage["model_flops"] == experiment.programs[0].train_flops
    # Backward costs twice forward, but for the first layer, whose input needs no gradient.
    assert 0.9 < stage["executed_flops"] / stage["model_flops"] < 1.0
    for row in (stage, sampler):
        memory = row["memory"]
        assert row["fits"] and memory["peak"] >= memory["argument"] > 0
        assert row["collectives"] == [] and row["unknown_loops"] == []
    assert content["chip"] is None and content["training"] is None
    assert content["state"] == state_bytes(abstract_train_state(experiment))
    page = path.with_suffix(".html").read_text()
    assert "Plan for local" in page and "<script" not in page
    assert "http" not in page.replace(PAPER, "")


def planner_without_compiler(
    monkeypatch: pytest.MonkeyPatch,
    bytes_of: Callable[[int], float],
    update_bytes: float = 0.0,
    **fields: Any,
) -> Planner:
    """A planner for a machine of 100,000 bytes whose gradients need `bytes_of(batch)`."""

    def row(planner: Planner, program: Program) -> dict[str, Any]:
        gradient = bytes_of(program.batch_size)
        needed = max(gradient, update_bytes + program.batch_size)
        facts = {"name": program.name, "batch_size": program.batch_size, "tokens_per_clip": 1}
        facts |= {"needed_bytes": needed, "gradient_bytes": gradient}
        return {**facts, "fits": needed <= 1e5, "compile_seconds": 0.0}

    sampler = {"name": "sampler", "batch_size": 8, "fits": True, "compile_seconds": 0.0}
    monkeypatch.setattr(topology, "device_memory", lambda device: 1e5)
    monkeypatch.setattr(planning, "training_summary", lambda *args, **kwargs: None)
    monkeypatch.setattr(Planner, "_stage_row", row)
    monkeypatch.setattr(Planner, "_sampler_row", lambda planner: sampler)
    config = tiny_config(**FULL_RATE, **fields)
    return Planner(config, open_target("local"), PlanFlags(topology="local"))


@pytest.mark.parametrize("mode", ["none", "nearest"])
def test_only_batches_that_a_run_would_take_are_tried_for_the_largest(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"train__grad_accum_steps": 3, "train__batch_size": 48, "alignment__mode": mode}
    planner = planner_without_compiler(monkeypatch, lambda batch: 1000.0 + 100 * batch, **fields)
    unit = 3 if mode == "none" else 24  # groups of 8
    assert planner.plan()["largest_batch"]["batch_size"] == 990 - 990 % unit


def test_an_update_that_needs_more_than_the_gradient_does_not_hide_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two small batches need what the update does; a line through them would end at 40,000."""
    planner = planner_without_compiler(monkeypatch, lambda batch: 1000.0 + 100 * batch, 60000.0)
    largest = planner.plan()["largest_batch"]
    assert (largest["batch_size"], largest["refused"]) == (984, 992)


def test_a_search_that_fails_loses_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def bytes_of(batch: int) -> float:
        if batch > 8:
            raise ValueError("no such batch")
        return 100.0 * batch

    content = planner_without_compiler(monkeypatch, bytes_of).plan()
    assert content["largest_batch"] is None and content["refusal"] is None
    assert [row["needed_bytes"] for row in content["stages"]] == [800.0]


def test_a_shape_of_frames_that_is_none_is_refused(tmp_path: pathlib.Path) -> None:
    flags = PlanFlags(topology="local", frame_shape=(48, 80))
    with pytest.raises(ValueError, match="--frame_shape"):
        plan(tiny_config(), tmp_path, flags)


def test_a_workdir_that_is_a_file_is_refused_before_anything_compiles(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(Planner, "plan", lambda planner: pytest.fail("it compiles"))
    with pytest.raises(FileExistsError):
        plan(tiny_config(), tmp_path / "file", PlanFlags(topology="local"))


@needs_libtpu
def test_the_two_billion_parameters_of_dit_2b_lie_in_sixteen_parts() -> None:
    devices = open_target("v5p:4x4x4").devices
    experiment = build_experiment(dit_2b.get_config(), devices, frame_shape=(48, 80, 16))
    state = state_bytes(abstract_train_state(experiment))
    assert 2.0e9 < state["num_parameters"] < 2.1e9
    # AdamW keeps two moments. Only vectors lie whole on every chip.
    shared = 4 * state["num_parameters"] / 16
    for name, copies in (("parameter_bytes", 1), ("average_bytes", 1), ("optimizer_bytes", 2)):
        assert copies * shared <= state[name] < 1.02 * copies * shared
    assert experiment.network.num_tokens((16, 48, 80)) == 16 * 24 * 40


@pytest.mark.slow
def test_stages_pooled_over_space_are_planned_at_their_size(tmp_path: pathlib.Path) -> None:
    config = tiny_config(pyramid__strides=((2, 2, 2), (1, 1, 1)))
    path = plan(config, tmp_path, PlanFlags(topology="local"))
    coarse, full = json.loads(path.read_text())["stages"]
    assert (coarse["strides"], coarse["shape"]) == ([2, 2, 2], [4, 16, 16])
    assert (full["strides"], full["shape"]) == ([1, 1, 1], [8, 32, 32])
    assert full["tokens_per_clip"] == 8 * coarse["tokens_per_clip"] == 8 * 4 * 4
    assert coarse["executed_flops"] < full["executed_flops"] / 4
    programs = build_experiment(config).programs
    assert [row["model_flops"] for row in (coarse, full)] == [p.train_flops for p in programs]
    page = path.with_suffix(".html").read_text()
    assert "<td>2 x 2 x 2</td><td>4 x 16 x 16</td>" in page
    assert "<td>1 x 1 x 1</td><td>8 x 32 x 32</td>" in page


@pytest.mark.slow
def test_other_frames_than_the_data_sets_are_planned(tmp_path: pathlib.Path) -> None:
    flags = PlanFlags(topology="local", frame_shape=(16, 24, 3))
    content = json.loads(plan(tiny_config(**FULL_RATE), tmp_path, flags).read_text())
    assert content["stages"][0]["tokens_per_clip"] == 8 * 2 * 3


@needs_libtpu
@pytest.mark.slow
@pytest.mark.usefixtures("compiled_in_haste")
def test_a_tpu_slice_is_planned_from_the_command_line(tmp_path: pathlib.Path) -> None:
    out = run_main(
        *("--mode=plan", FLOW, f"--workdir={tmp_path}", "--topology=v5e:2x4", "--nolargest_batch"),
        *(*flags_of_sizes(), "--config.pyramid.frame_strides=(2,1)"),
        timeout=3000,
    )
    assert out.returncode == 0, out.stderr
    assert "v5e:2x4 is not here: its programs cannot be kept, each plan compiles anew" in out.stderr
    assert "plan program 3/3" in out.stderr, "progress counts the programs"
    content = json.loads((tmp_path / "plan_v5e_2x4.json").read_text())
    assert content["topology"]["num_chips"] == 8
    assert content["training"]["speedup_over_vanilla"] > 1.0
    for row in [*content["stages"], content["sampler"]]:
        assert row["fits"] and row["memory_share"] < 0.1
        assert 0 < row["roofline"]["mfu_bound"] <= 1
    kinds = {c["kind"] for row in content["stages"] for c in row["collectives"]}
    assert "all-reduce" in kinds, "gradients of eight copies are added up"


@needs_libtpu
@pytest.mark.slow
@pytest.mark.usefixtures("compiled_in_haste")
def test_what_does_not_fit_ends_with_exit_code_5_and_one_line(tmp_path: pathlib.Path) -> None:
    out = run_main(
        *("--mode=plan", FLOW, f"--workdir={tmp_path}", "--topology=v5e:2x4"),
        *(*flags_of_sizes(), "--config.pyramid.frame_strides=(1,)", "--frame_shape=1024,1024,64"),
        timeout=3000,
    )
    assert out.returncode == 5, out.stderr
    (line,) = [line for line in out.stderr.splitlines() if line.startswith("tpdiff_jax: error:")]
    assert "sampler does not fit v5e:2x4" in line and "sample.batch_size" in line
    content = json.loads((tmp_path / "plan_v5e_2x4.json").read_text())
    assert content["refusal"] == line.removeprefix("tpdiff_jax: error: ")
