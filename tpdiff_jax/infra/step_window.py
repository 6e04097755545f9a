"""Bounded run-ahead, running totals, and what happened since the last log line.

JAX dispatches steps asynchronously. The loop may be at most `max_in_flight` steps ahead of the
device, which bounds memory and never starves it; waiting for the oldest step also tells when it
ended, hence how long it took, without ever stopping the device.
"""

import collections
import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from tpdiff_jax.types import Array


class _InFlight(NamedTuple):
    stage: int
    metrics: Mapping[str, Array]
    dispatched_at: float


class _Row(NamedTuple):
    stage: int
    seconds: float
    metrics: dict[str, float]


class StepWindow:
    """Durations and metrics of steps: totals over the run, means over the window since a log line.

    Attributes:
        counts: finished steps of each stage, over the whole run.
        seconds: device seconds of each stage, over the whole run.
        num_skipped: steps that the guard skipped, over the whole run.
    """

    def __init__(
        self, num_stages: int, totals: Mapping[str, float] | None = None, max_in_flight: int = 2
    ) -> None:
        """Start an empty window.

        Args:
            num_stages: number of pyramid stages.
            totals: what `totals` returned when the checkpoint was written; None for a new run.
            max_in_flight: steps that may be dispatched and unfinished, at least 1.
        """
        totals = totals or {}
        self.counts = [int(totals.get(f"steps_stage_{i}", 0)) for i in range(num_stages)]
        self.seconds = [float(totals.get(f"seconds_stage_{i}", 0.0)) for i in range(num_stages)]
        self.num_skipped = int(totals.get("skipped_steps", 0))
        self._max_in_flight = max_in_flight
        self._queue: collections.deque[_InFlight] = collections.deque()
        self._rows: list[_Row] = []
        self._last_end = 0.0

    def dispatched(self, stage: int, metrics: Mapping[str, Array], dispatched_at: float) -> None:
        """Note a dispatched step; waits when too many are in flight."""
        self._queue.append(_InFlight(stage, metrics, dispatched_at))
        while len(self._queue) > self._max_in_flight:
            self._finish_oldest()

    def wait(self) -> None:
        """Wait for every step in flight."""
        while self._queue:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        step = self._queue.popleft()
        values = {name: float(value) for name, value in jax.device_get(step.metrics).items()}
        end = time.perf_counter()
        seconds = end - max(self._last_end, step.dispatched_at)
        self._last_end = end
        self.counts[step.stage] += 1
        self.seconds[step.stage] += seconds
        self.num_skipped += int(values.pop("is_skipped"))
        self._rows.append(_Row(step.stage, seconds, values))

    def totals(self) -> dict[str, float]:
        """Wait, then return the totals over the run as a flat dict, for the checkpoint."""
        self.wait()
        out: dict[str, float] = {"skipped_steps": self.num_skipped}
        for i, (count, seconds) in enumerate(zip(self.counts, self.seconds, strict=True)):
            out |= {f"steps_stage_{i}": count, f"seconds_stage_{i}": seconds}
        return out

    def mean_step_seconds(self) -> dict[int, float]:
        """Return the mean duration of a step of each stage that has run."""
        pairs = enumerate(zip(self.seconds, self.counts, strict=True))
        return {i: seconds / count for i, (seconds, count) in pairs if count}

    def close(self) -> dict[str, float]:
        """Wait, return the window's means (non-finite values left out) and start the next window.

        Loss and median step time are given per stage as well; the learning rate is the last one.
        """
        self.wait()
        rows, self._rows = self._rows, []
        out = {name: _mean([row.metrics[name] for row in rows]) for name in rows[-1].metrics}
        out["learning_rate"] = rows[-1].metrics["learning_rate"]
        for i in sorted({row.stage for row in rows}):
            own = [row for row in rows if row.stage == i]
            out[f"loss_stage_{i}"] = _mean([row.metrics["loss"] for row in own])
            out[f"step_seconds_stage_{i}"] = float(np.median([row.seconds for row in own]))
        return out


def _mean(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
