"""Bounded run-ahead, running totals, and what happened since the last log line.

JAX dispatches steps asynchronously. The loop may be at most `max_in_flight` steps ahead of the
device, which bounds memory and never starves it. A thread waits for each step and notes when it
ended, so that a step's time is the device's, whatever the loop was doing meanwhile.
"""

import collections
import concurrent.futures
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from tpdiff_jax.optim.guard import BadStep, TooManyBadSteps
from tpdiff_jax.types import Array

_MAX_REPORTED = 100  # bad steps that a bundle describes


class _InFlight(NamedTuple):
    step: int
    program: int
    dispatched_at: float
    finished: "concurrent.futures.Future[tuple[dict[str, float], float]]"


class _Mean(NamedTuple):
    """A mean in the making; values that are not finite are left out."""

    total: float = 0.0
    number: int = 0

    def plus(self, value: float) -> "_Mean":
        return _Mean(self.total + value, self.number + 1) if np.isfinite(value) else self

    def value(self) -> float:
        return self.total / self.number if self.number else float("nan")


class Busy(NamedTuple):
    """When the device worked on one step: `time.perf_counter()` at both ends."""

    start: float
    end: float
    is_skipped: bool


class StepWindow:
    """Durations and metrics of steps: totals over the run, means over the window since a log line.

    Attributes:
        counts: finished steps of each program, over the whole run: bucket by bucket, by stage.
        seconds: device seconds of each program, over the whole run.
        num_skipped: steps that the guard skipped, over the whole run.
        num_spikes: how many of those were finite.
    """

    def __init__(
        self,
        num_stages: int,
        totals: Mapping[str, Any] | None = None,
        *,
        max_bad_steps: int,
        max_in_flight: int = 2,
        num_buckets: int = 1,
    ) -> None:
        """Start an empty window.

        Args:
            num_stages: number of pyramid stages.
            totals: what `totals` returned when the checkpoint was written; None for a new run.
            max_bad_steps: skipped steps in a row that stop the run.
            max_in_flight: steps that may be dispatched and unfinished, at least 1.
            num_buckets: number of shapes of clips.
        """
        totals, self._num_stages = totals or {}, num_stages
        self._names = [f"stage_{i}" for i in range(num_stages)]
        self._names += [
            f"stage_{i}_bucket_{b}" for b in range(1, num_buckets) for i in range(num_stages)
        ]
        self.counts = [int(totals.get(f"steps_{name}", 0)) for name in self._names]
        self.seconds = [float(totals.get(f"seconds_{name}", 0.0)) for name in self._names]
        self.num_skipped = int(totals.get("skipped_steps", 0))
        self.num_spikes = int(totals.get("spike_steps", 0))
        self._max_bad_steps = max_bad_steps
        self._max_in_flight = max_in_flight
        self._queue: collections.deque[_InFlight] = collections.deque()
        self._waiter = concurrent.futures.ThreadPoolExecutor(1, "step_end")
        means: Mapping[str, Iterable[Any]] = totals.get("window", {})
        self._means = {name: _Mean(*mean) for name, mean in means.items()}
        self._stage_seconds: dict[int, list[float]] = {}
        self._last: dict[str, float] = {}
        self._last_losses: dict[int, float] = {}
        self._busy: list[Busy] = []
        self._last_bad: collections.deque[BadStep] = collections.deque(
            maxlen=min(max_bad_steps, _MAX_REPORTED)
        )
        self._last_end = 0.0

    def dispatched(
        self, step: int, program: int, metrics: Mapping[str, Array], dispatched_at: float
    ) -> None:
        """Note that step `step` (counted from 0) is on its way; waits when too many are.

        Args:
            step: number of steps before it.
            program: what it runs; with one bucket the stage.
            metrics: what it returns.
            dispatched_at: `time.perf_counter()` then.

        Raises:
            TooManyBadSteps: as all methods that wait: when a finished step was the last straw.
                Nothing of a later step has been logged or saved by then, because both wait first.
        """
        finished = self._waiter.submit(_fetch, metrics)
        self._queue.append(_InFlight(step, program, dispatched_at, finished))
        while len(self._queue) > self._max_in_flight:
            self._finish_oldest()

    def wait(self) -> None:
        """Wait for every step in flight."""
        while self._queue:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        step = self._queue.popleft()
        values, end = step.finished.result()
        start = max(self._last_end, step.dispatched_at)
        self._last_end = end
        self.counts[step.program] += 1
        self.seconds[step.program] += end - start
        stage = step.program % self._num_stages
        is_skipped, is_spike = bool(values.pop("is_skipped")), bool(values.pop("is_spike"))
        bad_in_a_row = int(values.pop("bad_in_a_row"))
        self._stage_seconds.setdefault(stage, []).append(end - start)
        self._last, self._last_losses[stage] = values, values["loss"]
        for name, value in (values | {f"loss_stage_{stage}": values["loss"]}).items():
            self._means[name] = self._means.get(name, _Mean()).plus(value)
        self._busy.append(Busy(start, end, is_skipped))
        if is_skipped:
            self.num_skipped += 1
            self.num_spikes += int(is_spike)
            self._note_bad(
                BadStep(step.step, stage, values["loss"], values["grad_norm"], is_spike),
                bad_in_a_row,
            )

    def _note_bad(self, bad: BadStep, bad_in_a_row: int) -> None:
        self._last_bad.append(bad)
        logging.warning("%s", bad)
        if bad_in_a_row >= self._max_bad_steps:
            raise TooManyBadSteps(bad_in_a_row, tuple(self._last_bad))

    def take_busy(self) -> list[Busy]:
        """Wait, then return when the device worked, since the last call."""
        self.wait()
        busy, self._busy = self._busy, []
        return busy

    def totals(self) -> dict[str, Any]:
        """Wait, then return for the checkpoint: totals over the run, and the window so far.

        So the line after a restart holds the means over all of its steps, those before the restart
        too: JSON gives back every bit of a sum.
        """
        self.wait()
        out: dict[str, Any] = {"skipped_steps": self.num_skipped, "spike_steps": self.num_spikes}
        out["window"] = {name: list(mean) for name, mean in self._means.items()}
        for name, count, seconds in zip(self._names, self.counts, self.seconds, strict=True):
            out |= {f"steps_{name}": count, f"seconds_{name}": seconds}
        return out

    def progress(self) -> tuple[int, dict[str, float]]:
        """Return, without waiting, the finished steps of the run and each stage's last loss."""
        losses = self._last_losses
        names = {stage: "loss" if self._num_stages == 1 else f"loss_{stage}" for stage in losses}
        return sum(self.counts), {names[stage]: losses[stage] for stage in sorted(losses)}

    def mean_step_seconds(self) -> dict[int, float]:
        """Return the mean duration of a step of each program that has run."""
        pairs = enumerate(zip(self.seconds, self.counts, strict=True))
        return {i: seconds / count for i, (seconds, count) in pairs if count}

    def close(self) -> dict[str, float]:
        """Wait, return the window's means (non-finite values left out) and start the next window.

        Loss and step time are given per stage as well, the time as a median over the steps of this
        process; the learning rate is the last one. `step_loss` and `step_grad_norm` are the last
        step's own, exactly, for `--mode=replay`.
        """
        self.wait()
        last, means, seconds = self._last, self._means, self._stage_seconds
        self._means, self._stage_seconds = {}, {}
        out = {name: mean.value() for name, mean in means.items()}
        out |= {"learning_rate": last["learning_rate"]}
        out |= {"step_loss": last["loss"], "step_grad_norm": last["grad_norm"]}
        for i in sorted(seconds):
            out[f"step_seconds_stage_{i}"] = float(np.median(seconds[i]))
        return out


def _fetch(metrics: Mapping[str, Array]) -> tuple[dict[str, float], float]:
    """Wait for a step; return its metrics and when it ended."""
    values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
    return values, time.perf_counter()
