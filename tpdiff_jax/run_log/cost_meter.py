"""What a run has spent and how fast it goes, from step counts and the costs of a step."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tpdiff_jax.run_log.step_window import StepWindow


class StepCost(NamedTuple):
    """What one step of a program takes.

    Attributes:
        clips: clips of its batch.
        frames: frames of all of them, as the network sees them.
        train_flops: FLOPs of the network alone, forward and backward.
        counted_flops: those and all others that are counted.
    """

    clips: int
    frames: int
    train_flops: float
    counted_flops: float


class CostMeter:
    """Turns step counts into samples, frames, FLOPs and their rates.

    Attributes:
        peak_flops: what `peak_share` is a share of, FLOP/s.
    """

    def __init__(
        self,
        costs: Sequence[StepCost],
        window: StepWindow,
        *,
        peak_flops: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Remember where the run stands; the clock starts.

        Args:
            costs: of a step of each program, in the window's order.
            window: counts the steps.
            peak_flops: what all devices can do, FLOP/s.
            clock: counts seconds from anywhere.
        """
        self.peak_flops = peak_flops
        self._costs = costs
        self._window = window
        self._clock = clock
        self._last_counts = list(window.counts)
        self._last_seconds = sum(window.seconds)
        self._last_time = clock()

    def spent(self) -> dict[str, float]:
        """Return what the run has spent so far."""
        counts = self._window.counts
        return {
            "samples_seen": self._sum(counts, "clips"),
            "train_flops": self._sum(counts, "train_flops"),
            "counted_flops": self._sum(counts, "counted_flops"),
            "train_seconds": sum(self._window.seconds),
            "skipped_steps": self._window.num_skipped,
            "spike_steps": self._window.num_spikes,
        }

    def rates(self) -> dict[str, float]:
        """Return the rates since the last call: videos by the clock, FLOPs by device time."""
        counts, seconds = list(self._window.counts), sum(self._window.seconds)
        now = self._clock()
        new = [a - b for a, b in zip(counts, self._last_counts, strict=True)]
        wall = max(now - self._last_time, 1e-9)
        busy = max(seconds - self._last_seconds, 1e-9)
        self._last_counts, self._last_seconds, self._last_time = counts, seconds, now
        flops_per_second = self._sum(new, "train_flops") / busy
        return {
            "videos_per_second": self._sum(new, "clips") / wall,
            "frames_per_second": self._sum(new, "frames") / wall,
            "flops_per_second": flops_per_second,
            "peak_share": flops_per_second / self.peak_flops,
        }

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the rates: it goes into something else than training."""
        start = self._clock()
        yield
        self._last_time += self._clock() - start

    def _sum(self, counts: Sequence[int], cost: str) -> float:
        """The steps' costs of one kind, added up."""
        return sum(n * getattr(c, cost) for n, c in zip(counts, self._costs, strict=True))
