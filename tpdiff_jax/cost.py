"""What a run has spent and how fast it goes, from step counts and the network's FLOP model."""

import contextlib
import time
from collections.abc import Iterator, Sequence

import jax

from tpdiff_jax.build import Experiment
from tpdiff_jax.infra.peak import measure_matmul_flops
from tpdiff_jax.infra.step_window import StepWindow


class CostMeter:
    """Turns step counts into samples, frames, FLOPs and their rates."""

    def __init__(self, experiment: Experiment, window: StepWindow) -> None:
        """Measure the machine's peak and remember where the run stands."""
        self._experiment = experiment
        self._window = window
        self.peak_flops = measure_matmul_flops() * jax.device_count()
        self._last_counts = list(window.counts)
        self._last_seconds = sum(window.seconds)
        self._last_time = time.perf_counter()

    def spent(self) -> dict[str, float]:
        """Return what the run has spent so far."""
        counts = self._window.counts
        return {
            "samples_seen": self._clips(counts),
            "train_flops": self._flops(counts),
            "train_seconds": sum(self._window.seconds),
            "skipped_steps": self._window.num_skipped,
            "spike_steps": self._window.num_spikes,
        }

    def rates(self) -> dict[str, float]:
        """Return the rates since the last call: videos by the clock, FLOPs by device time."""
        counts, seconds = list(self._window.counts), sum(self._window.seconds)
        now = time.perf_counter()
        new = [a - b for a, b in zip(counts, self._last_counts, strict=True)]
        wall, busy = now - self._last_time, max(seconds - self._last_seconds, 1e-9)
        self._last_counts, self._last_seconds, self._last_time = counts, seconds, now
        stages = self._experiment.pyramid.stages
        sizes = self._experiment.batch_sizes
        num_frames = sum(
            n * size * stage.num_frames for n, size, stage in zip(new, sizes, stages, strict=True)
        )
        return {
            "videos_per_second": self._clips(new) / wall,
            "frames_per_second": num_frames / wall,
            "flops_per_second": self._flops(new) / busy,
            "peak_share": self._flops(new) / busy / self.peak_flops,
        }

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the rates: it goes into something else than training."""
        start = time.perf_counter()
        yield
        self._last_time += time.perf_counter() - start

    def _clips(self, counts: Sequence[int]) -> int:
        return sum(n * size for n, size in zip(counts, self._experiment.batch_sizes, strict=True))

    def _flops(self, counts: Sequence[int]) -> float:
        return sum(n * self._experiment.train_flops(i) for i, n in enumerate(counts))
