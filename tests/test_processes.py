"""Two real processes train as one does, stop together, and survive the death of one of them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tests.tiny import REPO, flags_of_sizes
from tpdiff_jax.infra import processes
from tpdiff_jax.infra.metric_writers import METRICS_FILE, read_metrics
from tpdiff_jax.infra.processes import ProcessFlags, join_processes

STATE_HASH = """
import hashlib, pathlib, sys
import jax
from tpdiff_jax import run_config
from tpdiff_jax.build import build_experiment
from tpdiff_jax.infra.checkpoints import Checkpoints
from tpdiff_jax.initial_state import abstract_train_state
workdir = pathlib.Path(sys.argv[1])
experiment = build_experiment(run_config.load_config(workdir))
restored = Checkpoints(workdir, create=False).restore(abstract_train_state(experiment))
digest = hashlib.sha256()
for leaf in jax.tree.leaves(restored.state):
    digest.update(jax.device_get(leaf).tobytes())
print(restored.step, digest.hexdigest())
"""


def trainer_flags(workdir: pathlib.Path) -> list[str]:
    """Return the command line of a tiny run of 20 steps with parameters divided over devices."""
    return [
        *("--config=configs/flow.py", f"--workdir={workdir}", *flags_of_sizes()),
        *("--config.pyramid.frame_strides=(2,1)", "--config.train.num_steps=20"),
        *("--config.train.log_every_steps=1", "--config.train.checkpoint_every_steps=4"),
        "--config.mesh.fsdp=2",
    ]


class Launched:
    """A run started by the local launcher, in a process group of its own."""

    def __init__(self, workdir: pathlib.Path, num_processes: int, num_devices: int) -> None:
        self.workdir, self.log = workdir, workdir.with_suffix(".log")
        self.launcher = subprocess.Popen(
            [
                *(sys.executable, "-m", "launch.local"),
                *(f"--processes={num_processes}", f"--devices={num_devices}", "--"),
                *trainer_flags(workdir),
            ],
            cwd=REPO,
            start_new_session=True,
            stdout=self.log.open("w"),  # not a pipe: nobody reads while the run goes on
            stderr=subprocess.STDOUT,
        )

    def trainers(self) -> list[int]:
        """Return the process ids of the trainers, in order of their numbers."""
        path = pathlib.Path(f"/proc/{self.launcher.pid}/task/{self.launcher.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def wait_for_step(self, step: int) -> None:
        """Return when the run has logged this step."""
        deadline = time.monotonic() + 600
        path = self.workdir / METRICS_FILE
        while not (path.exists() and any(line["step"] >= step for line in read_metrics(path))):
            assert self.launcher.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def finish(self) -> int:
        """Wait for the end; return the exit code."""
        return self.launcher.wait(timeout=900)

    def end(self) -> None:
        """Leave nothing behind."""
        if self.launcher.poll() is None:
            os.killpg(self.launcher.pid, signal.SIGKILL)
            self.launcher.wait()


@pytest.fixture
def start() -> Iterator:
    """Start runs; all of them are gone at the end."""
    runs: list[Launched] = []

    def start_run(*args) -> Launched:
        runs.append(Launched(*args))
        return runs[-1]

    yield start_run
    for run in runs:
        run.end()


def run_to_end(start, *args) -> None:
    run = start(*args)
    assert run.finish() == 0, run.log.read_text()


def losses(workdir: pathlib.Path) -> list[float]:
    return [line["loss"] for line in read_metrics(workdir / METRICS_FILE) if "loss" in line]


def state_hash(workdir: pathlib.Path) -> str:
    """Return step and hash of the newest checkpoint, read in a process with two devices."""
    flags = "--xla_force_host_platform_device_count=2 " + os.environ["XLA_FLAGS"]
    command: Sequence[str] = [sys.executable, "-c", STATE_HASH, str(workdir)]
    env = os.environ | {"XLA_FLAGS": flags}
    return subprocess.run(
        command, cwd=REPO, env=env, capture_output=True, text=True, check=True, timeout=300
    ).stdout


@pytest.mark.slow
def test_two_processes_equal_one_and_resume_exactly_when_one_dies_or_is_told_to_stop(
    start, tmp_path: pathlib.Path
) -> None:
    one, two, disturbed = tmp_path / "one", tmp_path / "two", tmp_path / "disturbed"
    run_to_end(start, one, 1, 2)
    run_to_end(start, two, 2, 1)
    np.testing.assert_allclose(losses(two)[0], losses(one)[0], rtol=1e-6)
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    assert len(losses(two)) == 20

    killed = start(disturbed, 2, 1)
    killed.wait_for_step(6)
    os.kill(killed.trainers()[1], signal.SIGKILL)
    assert killed.finish() == 128 + signal.SIGKILL

    stopped = start(disturbed, 2, 1)
    stopped.wait_for_step(len(losses(disturbed)) + 3)
    os.kill(stopped.trainers()[1], signal.SIGTERM)  # one is told; both stop at the same step
    assert stopped.finish() == 3, stopped.log.read_text()
    steps = sorted(int(path.name) for path in (disturbed / "checkpoints").iterdir())
    assert steps[-1] < 20

    run_to_end(start, disturbed, 2, 1)
    assert state_hash(disturbed) == state_hash(two)
    assert state_hash(two).startswith("20 ")
    assert losses(disturbed) == losses(two)
    results = [json.loads((run / "results.json").read_text()) for run in (two, disturbed)]
    assert results[0]["metrics"] == results[1]["metrics"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ProcessFlags(num_processes=2), "--coordinator_address and --process_id missing"),
        (ProcessFlags("localhost:1", 2, 2), "--process_id=2 must lie from 0 to --num_processes=2"),
        (ProcessFlags("localhost", 2, 0), "--coordinator_address=localhost must be HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(given: ProcessFlags, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_processes(given)


def test_without_flags_and_cluster_a_run_has_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_no_cluster() -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes.jax.distributed, "initialize", find_no_cluster)
    join_processes(ProcessFlags())


def test_a_cluster_that_cannot_be_joined_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("process_id and num_processes must be nonnegative")

    monkeypatch.setattr(processes.jax.distributed, "initialize", fail)
    with pytest.raises(ValueError, match="nonnegative"):
        join_processes(ProcessFlags())
