"""Ctrl-C and SIGTERM wherever they come: a step saved, or nothing half done, and nothing lost.

Videos are made by a stand-in, which sends the signal where a test wants it.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from tests.test_train import assert_same_state, final_state, run_to_end, untimed
from tests.tiny import REPO, flags_of_sizes, tiny_config
from tpdiff_jax import main, milestones, train
from tpdiff_jax.command_line import EXIT_CODES, Command, ExitCode
from tpdiff_jax.devices import early_stop
from tpdiff_jax.devices.stop_signal import StopSignal
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.run_folder.checkpoints import Checkpoints
from tpdiff_jax.run_log.json_lines import read_metrics

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Videos:
    """In place of the sampler: noise of the right shape, and a signal at the call that is due."""

    sends: dict[int, int] = {}
    num_calls = 0

    def __init__(self, experiment: Experiment) -> None:
        self._shape = experiment.shapes[0].video_shape

    def __call__(
        self,
        params: Any,
        cond: Mapping[str, np.ndarray],
        *,
        seed: int,
        batch_size: int,
        on_progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        number, Videos.num_calls = Videos.num_calls, Videos.num_calls + 1
        if number in Videos.sends:
            os.kill(os.getpid(), Videos.sends[number])
        count = len(next(iter(cond.values())))
        if on_progress is not None:
            on_progress(count)
        return np.random.default_rng(seed).uniform(-1, 1, (count, *self._shape)).astype(np.float32)

    def flops(self) -> float:
        return 1.0


@pytest.fixture(scope="module", autouse=True)
def one_compilation() -> Iterator[None]:
    compiled: list[Any] = []
    real = train.compile_steps

    def compile_once(*args: Any) -> Any:
        compiled.extend([] if compiled else [real(*args)])
        return compiled[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "compile_steps", compile_once)
        patch.setattr(milestones, "Sampler", Videos)
        yield


@pytest.fixture(autouse=True)
def no_signal_yet() -> None:
    Videos.sends, Videos.num_calls = {}, 0


def config() -> Any:
    return tiny_config(
        pyramid__frame_strides=(1,),
        train__num_steps=3,
        train__log_every_steps=1,
        train__checkpoint_every_steps=2,
        train__sample_every_steps=2,
        train__eval_every_steps=2,
        optim__warmup_steps=0,
        eval__num_videos=4,
        sample__num_steps=1,
    )


@pytest.fixture(scope="module")
def undisturbed(one_compilation: None, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    Videos.sends = {}
    run_to_end(config(), workdir)
    return workdir


def assert_same_run(workdir: pathlib.Path, other: pathlib.Path) -> None:
    """The same state, lines and videos, however often one of them was stopped."""
    assert_same_state(final_state(config(), workdir).state, final_state(config(), other).state)
    lines, others = (untimed(read_metrics(w / "metrics.jsonl")) for w in (workdir, other))
    assert lines == others
    videos, more = (
        sorted(str(p.relative_to(w)) for p in (w / "samples").rglob("*")) for w in (workdir, other)
    )
    assert videos == more and (workdir / "results.json").is_file()


# Calls of the sampler: samples and evaluation of step 2, then those of the end.
PLACES = {
    "samples on the way": (0, [2], "after step 2"),
    "evaluation on the way": (1, [2], "after step 2"),
    "final samples": (2, [2, 3], "after the last step"),
    "final evaluation": (3, [2, 3], "after the last step"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_signal_while_videos_are_made_costs_no_step_and_they_are_made_again(
    place: str, undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    call, steps, said = PLACES[place]
    Videos.num_calls = 0
    Videos.sends = {call: SIGNALS[call % 2]}
    with pytest.raises(train.Preempted, match=said):
        train.train(build_experiment(config()), tmp_path)
    assert Checkpoints(tmp_path, create=False).steps() == steps
    assert not (tmp_path / "results.json").exists()
    Videos.sends = {}
    train.train(build_experiment(config()), tmp_path)
    assert_same_run(tmp_path, undisturbed)


def test_a_signal_while_what_was_missed_is_made_again_keeps_it_due(
    undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for calls in ({0: signal.SIGTERM}, {1: signal.SIGINT}):
        Videos.num_calls, Videos.sends = 0, calls
        with pytest.raises(train.Preempted, match="step 2"):
            train.train(build_experiment(config()), tmp_path)
    Videos.sends = {}
    train.train(build_experiment(config()), tmp_path)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize(("batch", "number"), [(0, signal.SIGINT), (2, signal.SIGTERM)])
def test_a_signal_between_steps_saves_the_next_and_leaves(
    number: int,
    batch: int,
    undisturbed: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = train.iterate_batches

    def signalling(experiment: Experiment, first_step: int) -> Iterator[Any]:
        for count, fields in enumerate(real(experiment, first_step)):
            if count == batch:
                os.kill(os.getpid(), number)
            yield fields

    with monkeypatch.context() as patch:
        patch.setattr(train, "iterate_batches", signalling)
        with pytest.raises(train.Preempted):
            train.train(build_experiment(config()), tmp_path)
    assert Checkpoints(tmp_path, create=False).steps()[-1] == batch + 1
    train.train(build_experiment(config()), tmp_path)
    assert_same_run(tmp_path, undisturbed)


def test_a_signal_during_the_final_save_lets_it_end(
    undisturbed: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Checkpoints.save

    def save(self: Checkpoints, step: int, *rest: Any) -> None:
        real(self, step, *rest)
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        with pytest.raises(train.Preempted, match="after the last step"):
            train.train(build_experiment(config()), tmp_path)
    assert Checkpoints(tmp_path, create=False).steps() == [2, 3]
    train.train(build_experiment(config()), tmp_path)
    assert_same_run(tmp_path, undisturbed)


def test_one_ctrl_c_asks_and_a_second_leaves_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Left(Exception):
        pass

    def leave(code: int) -> None:
        assert code == ExitCode.INTERRUPTED == 130
        raise Left

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(os, "_exit", leave)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_due(1) and "Ctrl-C again leaves at once" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler may say it twice
        with pytest.raises(Left):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("steps", "said"),
    [([], "starts anew: nothing is saved yet"), ([3], "step 3"), ([100, 20], "step 100")],
)
def test_what_is_said_before_the_loop_is_what_is_there(
    steps: list[int], said: str, tmp_path: pathlib.Path
) -> None:
    for step in steps:
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    assert said in main._what_ctrl_c_leaves(tmp_path)
    assert "checkpoint" not in EXIT_CODES[ExitCode.INTERRUPTED]


@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_loop_a_signal_leaves_at_once_and_changes_nothing(
    number: int, tmp_path: pathlib.Path
) -> None:
    """Sent while the steps compile, which takes longer than this test waits."""
    words = ["--config=configs/flow.py", f"--workdir={tmp_path}", *flags_of_sizes()]
    code = (
        "import sys, time\n"
        "from tpdiff_jax import main, train\n"
        "def compile_steps(*_):\n"
        "    print('compiling', flush=True)\n"
        "    time.sleep(600)\n"
        "train.compile_steps = compile_steps\n"
        "main.run()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "compiling\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.PREEMPTED, err
    assert "Traceback" not in err and ("nothing is saved yet" in err) == (number == signal.SIGINT)
    assert not list((tmp_path / "checkpoints").glob("*")) if tmp_path.exists() else True


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--config=flow"], ExitCode.PREEMPTED),
        (["--mode=sample", "--config=flow"], ExitCode.INTERRUPTED),
        (["--mode=prepare", "--config=prepare"], ExitCode.INTERRUPTED),
        (["--mode=trian"], ExitCode.INTERRUPTED),
    ],
)
@pytest.mark.parametrize("place", ["print_help_when_asked", "parse"])
def test_the_first_ctrl_c_ends_a_start_even_where_an_exception_would_be_lost(
    place: str, words: list[str], code: int, tmp_path: pathlib.Path
) -> None:
    """Sent inside a callback, whose exceptions Python prints and forgets."""
    source = (
        "import os, signal, sys, time, weakref\n"
        "from tpdiff_jax import command_line, main\n"
        "class Thing: pass\n"
        "def send(*_):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.01)\n"
        "def start(*_):\n"
        "    thing = Thing()\n"
        "    reference = weakref.ref(thing, send)\n"
        "    del thing\n"
        "    sys.exit(99)\n"
        f"command_line.{place} = start\n"
        "main.run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, f"--workdir={tmp_path}", *words],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert ("the same command goes on" in line) == (code == ExitCode.PREEMPTED)


@pytest.mark.parametrize(
    ("words", "is_raised"),
    [(["--mode=doctor"], True), (["--workdir=gs://bucket/run"], True), ([], False)],
)
def test_what_tidies_up_is_interrupted_by_an_exception(
    words: list[str], is_raised: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(main, "set_up_jax", lambda command: None)
    monkeypatch.setattr(main, "_workdir", lambda command: contextlib.nullcontext(tmp_path))
    note = dict.fromkeys(main.RUN, lambda *_: seen.append(signal.getsignal(signal.SIGINT)))
    monkeypatch.setattr(main, "RUN", note)
    values = {"workdir": str(tmp_path)} | dict(word[2:].split("=") for word in words)
    # Where the tests run in the background it is ignored, and stays so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    early_stop.leave_at_ctrl_c(3, "")
    try:
        main.run_mode(Command(values.get("mode", "train"), values))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (seen[0] is signal.default_int_handler) == is_raised
