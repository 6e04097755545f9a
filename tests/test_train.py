"""The loop on a tiny network: resume is exact, one compilation a stage, outputs as promised."""

import json
import logging
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from absl import logging as absl_logging
from ml_collections import ConfigDict

from tests.tiny import REPO, tiny_config
from tpdiff_jax import train
from tpdiff_jax.data.requests import cycle_labels
from tpdiff_jax.data.step_schedule import stage_of_step
from tpdiff_jax.devices.origin import code_commit
from tpdiff_jax.evaluate import evaluate_run
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.generation.from_checkpoint import GenerateFlags, open_run
from tpdiff_jax.generation.prompts import SampleFlags
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_folder.checkpoint_manifest import CheckpointMismatchError
from tpdiff_jax.run_folder.checkpoints import CheckpointError, Checkpoints
from tpdiff_jax.run_log import sinks
from tpdiff_jax.run_log.json_lines import read_metrics
from tpdiff_jax.sample import sample_run
from tpdiff_jax.training.initial_state import abstract_train_state

TIMING = ("seconds", "per_second", "peak_share")


def is_output(name: str) -> bool:
    """Whether a field decides only what is written, so that no program depends on it."""
    return "_every_steps" in name or name.startswith("log.")


@pytest.fixture(scope="module", autouse=True)
def shared_compilation() -> Iterator[None]:
    """Compile equal experiments once: the step functions are pure."""
    real, compiled = train.compile_steps, {}

    def compile_once(experiment: Experiment, *args: Any) -> Any:
        config = dict(run_config.flat_fields(experiment.config))
        relevant = tuple(item for item in sorted(config.items()) if not is_output(item[0]))
        if relevant not in compiled:
            compiled[relevant] = real(experiment, *args)
        return compiled[relevant]

    train.compile_steps = compile_once
    yield
    train.compile_steps = real


class Crash(Exception):
    """Stands for a power cut between two steps."""


def crash_after(num_batches: int) -> Callable[..., Iterator[Any]]:
    """Return an `iterate_batches` that dies."""
    real = train.iterate_batches

    def iterate(experiment: Experiment, first_step: int) -> Iterator[Any]:
        for count, batch in enumerate(real(experiment, first_step)):
            if count == num_batches:
                raise Crash
            yield batch

    return iterate


def final_state(config: ConfigDict, workdir: pathlib.Path) -> Any:
    """Read the newest checkpoint."""
    restored = Checkpoints(workdir, create=False).restore(
        abstract_train_state(build_experiment(config))
    )
    assert restored is not None
    return restored


def run_to_end(config: ConfigDict, workdir: pathlib.Path) -> Any:
    """Train and return the final checkpoint."""
    train.train(build_experiment(config), workdir)
    return final_state(config, workdir)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished, undisturbed run."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    run_to_end(tiny_config(), workdir)
    return workdir


def assert_same_state(a: Any, b: Any) -> None:
    """Compare two states bit for bit."""
    leaves_a, leaves_b = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(leaves_a) == len(leaves_b)
    for x, y in zip(leaves_a, leaves_b, strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def train_lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Lines of training steps; the file also has those of evaluations."""
    return [line for line in read_metrics(workdir / "metrics.jsonl") if "loss" in line]


def untimed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop what depends on the clock."""
    return [
        {k: v for k, v in line.items() if not any(word in k for word in TIMING)} for line in lines
    ]


@pytest.mark.parametrize("batches_before_crash", [1, 4, 5])
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    finished: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    batches_before_crash: int,
) -> None:
    config = tiny_config(train__log_every_steps=1)
    monkeypatch.setattr(train, "iterate_batches", crash_after(batches_before_crash))
    with pytest.raises(Crash):
        train.train(build_experiment(config), tmp_path)
    monkeypatch.undo()
    resumed = run_to_end(config, tmp_path)
    undisturbed = final_state(tiny_config(), finished)
    assert resumed.step == undisturbed.step == 6
    assert_same_state(resumed.state, undisturbed.state)
    assert [line["step"] for line in train_lines(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_preemption_saves_leaves_and_resumes_exactly(
    finished: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopAtOnce(train.StopSignal):
        def __enter__(self) -> "StopAtOnce":
            super().__enter__()
            self.is_set = True
            return self

    monkeypatch.setattr(train, "StopSignal", StopAtOnce)
    for step in (1, 2):
        with pytest.raises(train.Preempted, match=f"after step {step}"):
            train.train(build_experiment(tiny_config()), tmp_path)
    monkeypatch.undo()
    resumed = run_to_end(tiny_config(), tmp_path)
    assert_same_state(resumed.state, final_state(tiny_config(), finished).state)
    assert untimed(train_lines(tmp_path)) == untimed(train_lines(finished)), "means over both lives"


def test_exactly_one_compilation_a_stage(
    tmp_path: pathlib.Path,
) -> None:
    compilations: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: compilations.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    jax.config.update("jax_log_compiles", True)  # for all threads, unlike jax.log_compiles()
    try:
        config = tiny_config(train__seed=11)  # not compiled by another test
        train.train(build_experiment(config), tmp_path)
    finally:
        jax.config.update("jax_log_compiles", False)
        logger.removeHandler(handler)
    finished_ones = [m for m in compilations if m.startswith("Finished XLA compilation")]
    names = [*(f"train_stage_{i}" for i in range(3)), "train_update"]
    assert [sum(name in m for m in finished_ones) for name in names] == [1, 1, 1, 1]


def test_workdir_holds_everything_promised(finished: pathlib.Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "checkpoints", "metrics.jsonl", "samples", "results.json"} <= names
    assert "goodput.jsonl" in names
    assert "report.html" in names
    assert sorted(p.name for p in (finished / "checkpoints").iterdir()) == ["3", "6"]
    samples = sorted(p.name for p in (finished / "samples").iterdir())
    assert samples == ["0000_label_0.mp4", "0001_label_1.mp4", "grid.gif"]
    results = json.loads((finished / "results.json").read_text())
    assert set(results["references"]) == {"ceiling", "frozen", "shuffled"}
    assert set(results["metrics"]) == set(results["metric_info"])
    assert results["counts"]["steps"] == results["counts"]["updates"] == 6
    spent = results["goodput"]
    assert spent["sessions"] == 1 and spent["seconds"]["training"] > 0
    assert sum(spent["seconds"].values()) == pytest.approx(spent["wall_seconds"])
    assert spent["seconds"]["training"] == pytest.approx(results["timing"]["train_seconds"])
    assert [stage["shape"] for stage in results["stages"]] == [
        [2, 32, 32],
        [4, 32, 32],
        [8, 32, 32],
    ]


def test_metrics_lines_have_the_promised_keys_and_honest_counts(finished: pathlib.Path) -> None:
    lines = read_metrics(finished / "metrics.jsonl")
    train_lines = [line for line in lines if "loss" in line]
    assert [line["step"] for line in train_lines] == [2, 4, 6]
    experiment = build_experiment(tiny_config())
    flops = [program.train_flops for program in experiment.programs]
    for line in train_lines:
        assert isinstance(line["step"], int) and line["stage"] in (0, 1, 2)
        assert line["samples_seen"] == 8 * line["step"]
        assert {"grad_norm", "learning_rate", "alignment_gain", "videos_per_second"} <= set(line)
        assert any(name.startswith("loss_stage_") for name in line)
    stages = [stage_of_step(0, step, experiment.train.stage_probs) for step in range(6)]
    assert train_lines[-1]["train_flops"] == pytest.approx(sum(flops[i] for i in stages))
    assert any("eval/label_accuracy" in line for line in lines)


def test_another_config_is_refused_and_a_longer_run_goes_on(
    finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(run_config.ConfigMismatchError, match="optim.learning_rate"):
        train.train(build_experiment(tiny_config(optim__learning_rate=0.5)), finished)
    short = tiny_config(train__num_steps=1, pyramid__frame_strides=(1,))
    run_to_end(short, tmp_path)
    longer = run_to_end(tiny_config(train__num_steps=3, pyramid__frame_strides=(1,)), tmp_path)
    assert longer.step == 3
    assert run_config.load_config(tmp_path).train.num_steps == 3


def test_a_resumed_run_may_write_to_other_sinks(
    finished: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first life with JSON lines alone, cut at step 5; the second one is in TensorBoard too."""
    monkeypatch.setattr(train, "iterate_batches", crash_after(5))
    with pytest.raises(Crash):
        train.train(build_experiment(tiny_config(log__sinks=("jsonl",))), tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / "tensorboard").exists()
    resumed = run_to_end(tiny_config(), tmp_path)
    assert_same_state(resumed.state, final_state(tiny_config(), finished).state)
    assert untimed(train_lines(tmp_path)) == untimed(train_lines(finished))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert run_config.load_config(tmp_path).log.sinks == ("jsonl", "tensorboard")


def test_a_sink_that_fails_costs_its_lines_and_nothing_else(
    finished: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any) -> Any:
        raise ConnectionError("the server is away")

    monkeypatch.setitem(sinks.SINKS, "unreachable", unreachable)
    config = tiny_config(log__sinks=("unreachable", "jsonl"))
    assert_same_state(
        run_to_end(config, tmp_path).state, final_state(tiny_config(), finished).state
    )
    assert untimed(read_metrics(tmp_path / "metrics.jsonl")) == untimed(
        read_metrics(finished / "metrics.jsonl")
    )
    counts = json.loads((tmp_path / "results.json").read_text())["counts"]
    assert counts["failed_metric_writes"] == 3 + 1 + 1, "three lines, videos and an evaluation"


def test_another_dataset_is_refused_with_the_difference(
    finished: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tpdiff_jax.data.moving_digits.VERSION", "moving-digits-0")
    with pytest.raises(CheckpointMismatchError) as error:
        train.train(build_experiment(tiny_config()), finished)
    assert "dataset.version: saved 'moving-digits-1', now 'moving-digits-0'" in str(error.value)


def test_a_length_that_the_run_has_passed_is_refused_and_a_complete_run_is_left_alone(
    finished: pathlib.Path,
) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    train.train(build_experiment(tiny_config()), finished)
    assert (finished / "metrics.jsonl").read_bytes() == before
    config = run_config.load_config(finished)
    try:
        with pytest.raises(ValueError, match=r"train\.num_steps=3 is below step 6"):
            train.train(build_experiment(tiny_config(train__num_steps=3)), finished)
    finally:
        run_config.save_config(finished, config)


def test_checkpoints_without_a_config_are_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"config\.json"):
        train.train(build_experiment(tiny_config()), tmp_path)


def test_a_damaged_newest_checkpoint_costs_steps_but_no_bit_and_is_named_and_counted(
    finished: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = shutil.copytree(finished, tmp_path / "run")
    damaged = next((workdir / "checkpoints" / "6" / "state" / "d").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:10])
    lines: list[str] = []
    monkeypatch.setattr(absl_logging, "info", lambda text, *args: lines.append(text % args))
    resumed = run_to_end(tiny_config(), workdir)
    (line,) = [line for line in lines if line.startswith("resumed")]
    assert "of step 3, because newer ones are damaged (step 6: " in line and damaged.name in line
    assert_same_state(resumed.state, final_state(tiny_config(), finished).state)
    counts = json.loads((workdir / "results.json").read_text())["counts"]
    assert counts["rejected_checkpoints"] == 1
    assert read_metrics(workdir / "metrics.jsonl")[-2]["rejected_checkpoints"] == 1


def test_sampling_and_evaluation_work_from_the_checkpoint_alone(
    finished: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = GenerateFlags(num_videos=3, seed=5, steps_per_stage=["1", "1", "2"])
    run = open_run(finished, overrides=flags)
    assert run.step == 6
    assert run.experiment.sampler.steps_per_stage == (1, 1, 2)
    folder = sample_run(run, SampleFlags(labels=["7", "3"]), tmp_path)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["0000_label_7.mp4", "0001_label_3.mp4", "0002_label_7.mp4", "grid.gif"]
    monkeypatch.setattr(sys, "argv", ["/bin/tpdiff_jax", "evaluate", "--num_videos=3"])
    path = evaluate_run(run, tmp_path)
    assert path.name == "evaluation_00000006.json"
    evaluation = json.loads(path.read_text())
    assert "label_accuracy" in evaluation["metrics"]
    assert evaluation["command"] == "tpdiff_jax evaluate --num_videos=3"
    assert evaluation.get("commit", "") == code_commit(REPO / "tpdiff_jax")


def test_the_same_seed_and_label_give_the_same_video_at_any_batch_size(
    finished: pathlib.Path,
) -> None:
    run = open_run(finished)
    sampler = Sampler(run.experiment)
    labels = cycle_labels(5, 1, 10)
    one = sampler(run.params, {"label": labels}, seed=3, batch_size=1)
    several = sampler(run.params, {"label": labels}, seed=3, batch_size=4)
    alone = sampler(run.params, {"label": labels[:3]}, seed=3, batch_size=4)
    np.testing.assert_array_equal(several[:3], alone)
    # Between batch sizes the compiler may order sums differently: rounding only.
    np.testing.assert_allclose(one, several, atol=2e-5)


@pytest.mark.parametrize(
    ("labels", "captions", "message"),
    [
        (["12"], [], "--labels entry '12'"),
        (["1-2"], [], "--labels entry '1-2'"),
        (["x"], [], "--labels entry 'x'"),
        (["1"], ["the digit 1 moves"], "not both"),
        ([], ["a cat"], "caption"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    finished: pathlib.Path, tmp_path: pathlib.Path, labels: list, captions: list, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sample_run(open_run(finished), SampleFlags(labels=labels, captions=captions), tmp_path)


def test_opening_a_run_refuses_what_is_not_there(
    finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        open_run(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint of step 5"):
        open_run(finished, step=5)
    with pytest.raises(ValueError, match="--steps_per_stage"):
        open_run(finished, overrides=GenerateFlags(steps_per_stage=["many"]))
    with pytest.raises(run_config.ConfigMismatchError, match="model.depth"):
        open_run(finished, config=tiny_config(model__depth=2))
    run_config.save_config(tmp_path, tiny_config())
    with pytest.raises(CheckpointError, match="no checkpoint"):
        open_run(tmp_path)


def test_sample_and_eval_groups_may_come_from_a_new_config(finished: pathlib.Path) -> None:
    run = open_run(finished, config=tiny_config(sample__solver="second_order"))
    assert run.experiment.sampler.solver == "second_order"
    scales = open_run(finished, overrides=GenerateFlags(guidance_scale=["3"])).experiment.sampler
    assert scales.guidance_scale == (3.0, 3.0, 3.0)
