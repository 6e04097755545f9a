"""Two real processes train as one does, stop together, and survive the death of one of them."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from experiments.soak import compare_runs
from tests.tiny import REPO, flags_of_sizes
from tpdiff_jax.run_folder.checkpoint_folder import list_steps
from tpdiff_jax.run_log.json_lines import METRICS_FILE, read_metrics

NUM_STEPS = 60
TIMEOUT = 300.0  # seconds of one run, of which it needs some ten: whatever hangs is ended


class Launched:
    """A run of the local launcher, in a process group of its own."""

    def __init__(self, workdir: pathlib.Path, *, num_processes: int) -> None:
        self.workdir, self.log = workdir, workdir.with_suffix(".log")
        self.logged_before = last_step(workdir)
        self.deadline = time.monotonic() + TIMEOUT
        with self.log.open("a") as log:  # not a pipe: nobody reads while the run goes on
            self.launcher = subprocess.Popen(
                [
                    *(sys.executable, "-m", "launch.local", f"--processes={num_processes}"),
                    *("--devices=1", "--", "--config=configs/flow.py", f"--workdir={workdir}"),
                    *flags_of_sizes(),
                    *(f"--config.train.num_steps={NUM_STEPS}", "--config.train.log_every_steps=1"),
                    *("--config.train.checkpoint_every_steps=15", "--config.data.num_frames=4"),
                    *("--config.pyramid.frame_strides=(1,)", "--config.sample.num_steps=1"),
                    f"--config.mesh.fsdp={num_processes}",
                ],
                cwd=REPO,
                start_new_session=True,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def signal_last(self, step: int, signal_number: int) -> int:
        """Signal the last trainer; return the launcher's code.

        It is signalled once this start has logged `step`, and a checkpoint is there: saving goes
        on beside training, so the step of a checkpoint is logged before the checkpoint is whole.
        """
        step = max(step, self.logged_before + 1)  # lines of an earlier start tell nothing
        while last_step(self.workdir) < step or not list_steps(self.workdir / "checkpoints"):
            assert self.launcher.poll() is None, self.log.read_text()
            assert time.monotonic() < self.deadline, self.log.read_text()
            time.sleep(0.02)
        pid = self.launcher.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(children[-1]), signal_number)
        return self.finish()

    def finish(self) -> int:
        """Wait for the end; return the exit code."""
        return self.launcher.wait(timeout=max(0.0, self.deadline - time.monotonic()))

    def end(self) -> None:
        """Leave nothing behind, trainers whose launcher is gone included."""
        try:
            os.killpg(self.launcher.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.launcher.wait()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[Callable]:
    """Start runs that share what they compile; all of them are gone at the end."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    runs: list[Launched] = []

    def start_run(name: str, num_processes: int = 2) -> Launched:
        runs.append(Launched(tmp_path / name, num_processes=num_processes))
        return runs[-1]

    yield start_run
    for run in runs:
        run.end()


def finished(run: Launched) -> pathlib.Path:
    """Wait for a run to be complete; return its workdir."""
    assert run.finish() == 0, run.log.read_text()
    return run.workdir


def train_lines(workdir: pathlib.Path) -> list[dict]:
    """Lines of training steps; the file also has those of evaluations."""
    return [line for line in read_metrics(workdir / METRICS_FILE) if "loss" in line]


def last_step(workdir: pathlib.Path) -> int:
    """Return the last step that is logged, 0 for none."""
    return max((line["step"] for line in train_lines(workdir)), default=0)


def losses(workdir: pathlib.Path) -> list[float]:
    return [line["loss"] for line in train_lines(workdir)]


@pytest.mark.slow
def test_two_processes_equal_one_and_resume_exactly_when_one_dies_or_is_told_to_stop(
    start: Callable,
) -> None:
    two = finished(start("two"))
    one = finished(start("one", num_processes=1))
    assert len(losses(two)) == NUM_STEPS
    np.testing.assert_allclose(losses(two)[0], losses(one)[0], rtol=1e-6)
    np.testing.assert_allclose(losses(two)[:20], losses(one)[:20], rtol=1e-5)

    killed = start("disturbed")
    assert killed.signal_last(17, signal.SIGKILL) == 128 + signal.SIGKILL
    assert list_steps(killed.workdir / "checkpoints")[-1] < NUM_STEPS

    stopped = start("disturbed")
    assert stopped.signal_last(22, signal.SIGTERM) == 3, stopped.log.read_text()
    last_words = re.findall(r"stopped after step (\d+)", stopped.log.read_text())
    assert len(last_words) == 2 and len(set(last_words)) == 1, "one was told, both stop together"
    assert list_steps(stopped.workdir / "checkpoints")[-1] == int(last_words[0]) < NUM_STEPS

    disturbed = finished(start("disturbed"))
    report = compare_runs(two, disturbed)
    assert report["is_equal"] and report["compared_lines"] == NUM_STEPS, report
    metrics = [
        json.loads((run / "results.json").read_text())["metrics"] for run in (two, disturbed)
    ]
    assert metrics[0] == metrics[1]
