"""Bad steps in a whole run: skipped as if never applied, stopped with a bundle, taken again.

Step 4 of the run below meets a batch of NaN, and so does every step from 8 on; two bad steps in a
row stop it at step 9, at which a checkpoint is due.
"""

import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from tests.test_train import assert_same_state
from tests.tiny import REPO, tiny_config
from tpdiff_jax import main, replay, train
from tpdiff_jax.command_line import Command, ExitCode
from tpdiff_jax.devices.origin import code_commit
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.optim.guard import TooManyBadSteps
from tpdiff_jax.run_folder.checkpoints import Checkpoints
from tpdiff_jax.run_log.goodput import summarise
from tpdiff_jax.run_log.json_lines import read_metrics
from tpdiff_jax.training.initial_state import abstract_train_state, make_state, run_keys

REAL_BATCHES = train.iterate_batches
FIRST, LAST = 3, 7  # bad from 0: one step, and every step from the second on


def poisoned_batches(experiment: Experiment, first_step: int) -> Iterator[Any]:
    """Yield the run's batches, those of bad steps full of NaN."""
    for step, batch in enumerate(REAL_BATCHES(experiment, first_step), start=first_step):
        is_bad = step == FIRST or step >= LAST
        yield batch | {"video": batch["video"] * np.nan} if is_bad else batch


def the_config(**periods: int) -> Any:
    """Return the run's config; periods may change from start to start."""
    return tiny_config(
        pyramid__frame_strides=(1,),
        train__num_steps=12,
        train__log_every_steps=1,
        guard__max_bad_steps=2,
        **periods,
    )


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    """Poison the data and compile once for all starts and replays of the run."""
    patch = pytest.MonkeyPatch()
    compiled: list[Any] = []
    real = train.compile_steps

    def compile_once(*args: Any) -> Any:
        if not compiled:
            compiled.append(real(*args))
        return compiled[0]

    for module in (train, replay):
        patch.setattr(module, "compile_steps", compile_once)
        patch.setattr(module, "iterate_batches", poisoned_batches)
    yield patch
    patch.undo()


@pytest.fixture(scope="module")
def stopped(patched: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run that has been started and has stopped itself."""
    workdir = tmp_path_factory.mktemp("stopped")
    with pytest.raises(TooManyBadSteps):
        train.train(build_experiment(the_config()), workdir)
    return workdir


@pytest.fixture
def copied(stopped: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """The same for a test that changes it: workers that share the tests take them in any order."""
    return pathlib.Path(shutil.copytree(stopped, tmp_path / "run"))


def test_a_bad_batch_is_a_step_that_was_never_applied(stopped: pathlib.Path) -> None:
    experiment = build_experiment(the_config())
    abstract_state = abstract_train_state(experiment)
    key_init, key_steps = run_keys(experiment.train.seed)
    (step_function,) = train.compile_steps(experiment, abstract_state, key_steps)
    state, batches = make_state(experiment, key_init), REAL_BATCHES(experiment, 0)
    for step in range(6):
        batch = next(batches)
        if step == FIRST:
            state = state._replace(step=state.step + 1)
        else:
            state, _ = step_function(state, batch, key_steps)
    restored = Checkpoints(stopped, create=False).restore(abstract_state, 6)
    assert restored is not None
    assert_same_state(restored.state, state)
    assert restored.totals["skipped_steps"] == 1


def test_the_run_stops_at_the_step_that_was_too_much_with_nothing_of_it_saved(
    stopped: pathlib.Path,
) -> None:
    assert Checkpoints(stopped, create=False).steps() == [3, 6]
    lines = [line for line in read_metrics(stopped / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["skipped_steps"] for line in lines] == [0, 0, 0, 1, 1, 1, 1, 2]
    assert lines[3]["step_loss"] is None


def test_the_bundle_holds_what_the_bad_steps_were_made_of(stopped: pathlib.Path) -> None:
    (folder,) = (stopped / "bad_steps").iterdir()
    assert folder.name == "9"
    bundle = json.loads((folder / "bad_steps.json").read_text())
    assert (bundle["bad_in_a_row"], bundle["last_step"]) == (2, 9)
    assert [step["step"] for step in bundle["steps"]] == [8, 9]
    last = bundle["steps"][-1]
    assert (last["loss"], last["stage"], last["is_spike"]) == ("nan", 0, False)
    assert last["clips"] == [8 * 8, 8 * 8 + 7]
    key = jax.random.fold_in(run_keys(0)[1], 8)
    assert last["key"] == np.asarray(jax.random.key_data(key)).tolist()
    assert 0.0 <= last["t"]["min"] < last["t"]["mean"] < last["t"]["max"] <= 1.0
    assert bundle["config"]["guard"]["max_bad_steps"] == 2 and bundle["versions"]["jax"]
    assert bundle.get("commit", "") == code_commit(REPO / "tpdiff_jax")
    with np.load(folder / "batch_0.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"video", "cond.label"}
        assert arrays["video"].shape == (8, 8, 32, 32, 1) and np.all(np.isnan(arrays["video"]))


def test_a_restart_stops_at_the_same_step_with_the_row_carried_over(
    copied: pathlib.Path,
) -> None:
    """The second start saves after the first bad step, the third begins with the second one."""
    for start in range(2):
        with pytest.raises(TooManyBadSteps) as stop:
            experiment = build_experiment(the_config(train__checkpoint_every_steps=1))
            train.train(experiment, copied)
        assert stop.value.steps[-1].step + 1 == 9
        assert len(stop.value.steps) == 2 - start
    lines = read_metrics(copied / "goodput.jsonl")
    summary = summarise(lines)
    assert summary["sessions"] == 3
    assert sum(summary["seconds"].values()) == pytest.approx(summary["wall_seconds"])
    assert summary["seconds"]["redone"] > 0 and summary["seconds"]["skipped"] > 0


@pytest.mark.parametrize("step", [2, 5, 4])  # from the start, from a checkpoint, a skipped one
def test_replay_gives_the_bits_of_a_logged_step(
    stopped: pathlib.Path, capsys: pytest.CaptureFixture[str], step: int
) -> None:
    assert replay.replay(stopped, step)
    out = capsys.readouterr().out
    assert f"step {step}, stage 0" in out
    assert out.count("equal to the logged one") == 2
    assert (", skipped" in out) == (step == 4)


@pytest.mark.parametrize(
    ("step", "changed", "is_told"),
    [(2, 2, True), (2, 1, True), (2, 3, False)],
)
def test_replay_calls_no_difference_what_another_schedule_has_made(
    step: int,
    changed: int,
    is_told: bool,
    copied: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As in a run that was made longer: a step up to the replayed one had another rate then."""
    path = copied / "metrics.jsonl"
    lines = read_metrics(path)
    for line in lines:
        if line["step"] == step:
            line["step_loss"] = float(np.nextafter(np.float32(line["step_loss"]), np.float32(9)))
        if line["step"] == changed:
            line["learning_rate"] *= 1.5
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert replay.replay(copied, step) == is_told
    out = capsys.readouterr().out
    assert ("the schedule was another then" in out) == is_told == ("DIFFERS" not in out)
    assert "grad_norm" in out and out.count("equal to the logged one") == 1


def test_replay_sees_a_last_bit_that_differs(
    copied: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / "metrics.jsonl"
    lines = read_metrics(path)
    loss = np.float32(lines[1]["step_loss"])
    lines[1]["step_loss"] = float(np.nextafter(loss, np.float32(9)))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not replay.replay(copied, 2)
    assert "DIFFERS" in capsys.readouterr().out
    path.write_text("")
    assert replay.replay(copied, 2)
    assert capsys.readouterr().out.count("not logged") == 2


@pytest.mark.parametrize("step", [0, 13])
def test_replay_refuses_a_step_that_the_run_does_not_have(stopped: pathlib.Path, step: int) -> None:
    with pytest.raises(ValueError, match=f"--step={step} must lie in 1 to train.num_steps=12"):
        replay.replay(stopped, step)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (train.Preempted("stopped"), ExitCode.PREEMPTED),
        (TooManyBadSteps(3, ()), ExitCode.BAD_STEPS),
        (ValueError("bad"), ExitCode.BAD_INPUT),
    ],
)
def test_each_way_to_stop_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, code: int
) -> None:
    def run_mode(command: Command) -> int:
        raise raised

    monkeypatch.setattr(main, "run_mode", run_mode)
    with pytest.raises(SystemExit) as stop:
        main.main(["tpdiff_jax", "--mode=doctor", "--workdir=w"])
    assert stop.value.code == code
