"""Running many training runs, a few at a time: one process a run, resumed where it stopped.

Workers side by side get cores of their own, so that none slows another down by chance. Their
output goes to `log.txt` in the run's folder; here one line says how far the whole grid is.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from experiments.grid.plan import PlannedRun
from tpdiff_jax.run_log.progress import Progress

LOG_FILE = "log.txt"
_POLL_SECONDS = 1.0
_SHOW_SECONDS = 10.0  # reading all logs more often would take time from the runs
_LOG_TAIL = 15
_GIGA = 1e9


class Stopped(Exception):
    """The queue was asked to stop; its runs have saved a checkpoint."""


class _Running(NamedTuple):
    run: PlannedRun
    process: subprocess.Popen
    slot: int


def run_all(runs: Sequence[PlannedRun], *, workers: int = 1) -> list[PlannedRun]:
    """Run what is not finished yet.

    Args:
        runs: the runs, in the order to start them in.
        workers: runs at a time; above 1, each is pinned to its own cores.

    Returns:
        The runs that failed; the others have written their results.

    Raises:
        ValueError: when there are more workers than cores.
        Stopped: after SIGTERM or Ctrl-C.
    """
    slots = split_cores(_available_cores(), workers)
    waiting = [run for run in runs if not run.is_finished()]
    running: list[_Running] = []
    failed: list[PlannedRun] = []
    free = list(range(workers))
    shown_at = -_SHOW_SECONDS
    total, before = sum(run.flops for run in runs), sum(_flops_done(run) for run in runs)
    with (
        _stop_on_signal(),
        Progress(
            round(total / _GIGA), initial=round(before / _GIGA), label="grid", unit="GFLOP"
        ) as progress,
    ):
        try:
            while waiting or running:
                while waiting and free:
                    slot = free.pop(0)
                    running.append(_start(waiting.pop(0), slots[slot], slot))
                time.sleep(_POLL_SECONDS)
                for item in [item for item in running if item.process.poll() is not None]:
                    running.remove(item)
                    free.append(item.slot)
                    if item.process.returncode or not item.run.is_finished():
                        failed.append(item.run)
                        progress.message(_describe_failure(item))
                if time.monotonic() - shown_at >= _SHOW_SECONDS or not running:
                    shown_at = time.monotonic()
                    _show(progress, runs)
        finally:
            _terminate(running)
    return failed


def split_cores(cores: Sequence[int], workers: int) -> list[list[int]]:
    """Return the cores of each worker: contiguous shares that do not overlap.

    Raises:
        ValueError: when a worker would get none.
    """
    if not 1 <= workers <= len(cores):
        raise ValueError(f"--workers={workers} must lie between 1 and the {len(cores)} cores")
    bounds = [k * len(cores) // workers for k in range(workers + 1)]
    return [list(cores[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]


def _available_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _start(run: PlannedRun, cores: list[int], slot: int) -> _Running:
    run.workdir.mkdir(parents=True, exist_ok=True)
    with open(run.workdir / LOG_FILE, "a") as log, _affinity(cores):
        # A session of its own: Ctrl-C reaches this process only, which then stops the runs gently.
        process = subprocess.Popen(
            run.command(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    return _Running(run, process, slot)


@contextmanager
def _affinity(cores: list[int]) -> Iterator[None]:
    """Lets processes started within inherit `cores`, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _stop_on_signal() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Stopped("stopped; the same command goes on from here")

    signals = (signal.SIGINT, signal.SIGTERM)
    before: list[Callable[..., Any] | int | None] = [signal.signal(s, stop) for s in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _terminate(running: Sequence[_Running]) -> None:
    """Ask the runs to save and stop, and wait until they have."""
    for item in running:
        item.process.send_signal(signal.SIGTERM)
    for item in running:
        item.process.wait()


def _flops_done(run: PlannedRun) -> float:
    share = 1.0 if run.is_finished() else min(1.0, run.steps_done() / run.num_steps)
    return run.flops * share


def _show(progress: Progress, runs: Sequence[PlannedRun]) -> None:
    done = sum(_flops_done(run) for run in runs)
    finished = sum(run.is_finished() for run in runs)
    progress.update(round(done / _GIGA), runs=f"{finished}/{len(runs)}")


def _describe_failure(item: _Running) -> str:
    log = item.run.workdir / LOG_FILE
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
    name = item.run.workdir.name
    return f"{name} ended with code {item.process.returncode}; the end of {log}:\n{tail}"
