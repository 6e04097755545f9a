"""A run log whose ledgers a test can look into, and clocks that stand still until told."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from tpdiff_jax.run_log.cost_meter import CostMeter, StepCost
from tpdiff_jax.run_log.goodput import Goodput
from tpdiff_jax.run_log.metric_writers import MetricWriter
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.run_log.run_log import RunLog
from tpdiff_jax.run_log.step_window import StepWindow

COSTS = (
    StepCost(clips=8, frames=16, train_flops=100.0, counted_flops=110.0),
    StepCost(clips=8, frames=32, train_flops=200.0, counted_flops=210.0),
)


class Clock:
    """A clock that stands still until told."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds

    def work(self, seconds: float) -> None:
        self.seconds += seconds


class RecordingSink:
    """A sink into lists."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.videos: list[tuple[int, Mapping[str, np.ndarray]]] = []
        self.is_closed = False

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        self.lines.append({"step": step, **scalars})

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray], fps: int) -> None:
        self.videos.append((step, videos))

    def close(self) -> None:
        self.is_closed = True


def step_metrics(loss: Any = 1.0, *, bad_in_a_row: int = 0) -> dict[str, Any]:
    """Return what a step gives the loop."""
    return {
        "loss": loss,
        "grad_norm": np.float32(2.0),
        "learning_rate": np.float32(0.1),
        "is_skipped": np.float32(bad_in_a_row > 0),
        "is_spike": np.float32(0.0),
        "bad_in_a_row": np.float32(bad_in_a_row),
    }


class Ledgers:
    """A run log of two stages, and everything behind it."""

    def __init__(self, totals: Mapping[str, Any] | None = None, *, max_bad_steps: int = 9) -> None:
        self.sink, self.spans = RecordingSink(), RecordingSink()
        self.terminal = io.StringIO()
        self.clock = Clock()
        self.window = StepWindow(len(COSTS), totals, max_bad_steps=max_bad_steps)
        self.writer = MetricWriter({"recording": lambda: self.sink})
        self.log = RunLog(
            window=self.window,
            meter=CostMeter(COSTS, self.window, peak_flops=1e3, clock=self.clock),
            # The window notes the device's time by time.perf_counter, hence so must this.
            goodput=Goodput(MetricWriter({"spans": lambda: self.spans})),
            writer=self.writer,
            progress=Progress(10, stream=self.terminal, log_seconds=0.0),
        )
