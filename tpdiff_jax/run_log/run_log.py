"""What the training loop tells of itself, in four verbs.

    dispatched   a step is on its way                 spend    the time inside goes into something
    line         a line of metrics is due             totals   what the checkpoint has to hold

Behind them are the window of steps, the meter of what was spent, the clock of goodput.jsonl, the
sinks of metrics and the terminal. Nothing that fails to be written stops the loop; too many bad
steps do, in whichever verb waits for the last of them.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tpdiff_jax.run_log.cost_meter import CostMeter
from tpdiff_jax.run_log.goodput import Goodput
from tpdiff_jax.run_log.lost_lines import LOGGED_STEP
from tpdiff_jax.run_log.metric_writers import MetricWriter
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.run_log.step_window import StepWindow
from tpdiff_jax.types import Array

SHOW_SECONDS = 1.0  # between two looks of the terminal at the steps


class Figures(NamedTuple):
    """What a run ends with.

    Attributes:
        timing: what it has spent, and the machine's peak in FLOP/s.
        step_seconds: program -> mean seconds of a step.
        failed_metric_writes: writes that were lost in this session.
    """

    timing: dict[str, float]
    step_seconds: dict[int, float]
    failed_metric_writes: int


class RunLog:
    """The ledgers of one session behind one door; leaving it closes them."""

    def __init__(
        self,
        *,
        window: StepWindow,
        meter: CostMeter,
        goodput: Goodput,
        writer: MetricWriter,
        progress: Progress,
        logged_step: int = 0,
    ) -> None:
        """Take over the ledgers.

        Args:
            window: of the steps in flight and finished.
            meter: of the same window.
            goodput: the session's clock.
            writer: takes the lines of metrics.
            progress: the terminal.
            logged_step: completed steps of the last line of an earlier session that is kept.
        """
        self._logged_step = logged_step
        self._window, self._meter, self._goodput = window, meter, goodput
        self._writer, self._progress = writer, progress
        self._shown_at = 0.0

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
            TooManyBadSteps: as all four verbs: when a finished step was the last straw.
        """
        self._window.dispatched(step, program, metrics, dispatched_at)
        if dispatched_at - self._shown_at < SHOW_SECONDS:
            return
        done, losses = self._window.progress()
        if losses:
            self._shown_at = dispatched_at
            self._progress.update(done, **losses)

    def line(self, done: int, place: Mapping[str, int], counts: Mapping[str, int]) -> None:
        """Wait, then write means, rates and totals since the last line; show each stage's loss.

        Args:
            done: completed steps.
            place: stage, and bucket where there are several, of the last of them.
            counts: what else is counted.
        """
        means = self._window.close()
        rates = self._meter.rates() | self._meter.spent()
        self._writer.write_scalars(done, {**place, **means, **rates, **counts})
        self._logged_step = done
        self._progress.update(done, **self._window.progress()[1])
        self._end_span(done)

    @contextlib.contextmanager
    def spend(self, part: str, *, ends_at: int | None = None) -> Iterator[None]:
        """Wait for the steps in flight, then count the time inside for `part`.

        Args:
            part: one of `goodput.LOOP_PARTS`; `evaluation` is left out of the rates as well.
            ends_at: completed steps, when a line of goodput.jsonl ends with it.

        Raises:
            ValueError: for a part that there is not.
        """
        self._window.wait()
        is_training = part != "evaluation"
        pause = contextlib.nullcontext() if is_training else self._meter.paused()
        with pause, self._goodput.spend(part):
            yield
        if ends_at is not None:
            self._end_span(ends_at)

    def totals(self) -> dict[str, Any]:
        """Wait, then return what the log of a resumed run goes on from; JSON can hold it."""
        return {**self._window.totals(), LOGGED_STEP: self._logged_step}

    def measured(self, done: int, scalars: Mapping[str, Any]) -> None:
        """Write a line of an evaluation, beside what the run had spent by then.

        Args:
            done: completed steps.
            scalars: its figures, as in `eval/label_accuracy`.
        """
        self._writer.write_scalars(done, {**scalars, **self._meter.spent()})

    def shown(self, done: int, videos: Mapping[str, np.ndarray]) -> None:
        """Show sample videos.

        Args:
            done: completed steps.
            videos: name -> uint8 [n, f, h, w, c], drawn as one grid.
        """
        self._writer.write_videos(done, videos)

    def figures(self) -> Figures:
        """Return what the run ends with."""
        return Figures(
            timing={**self._meter.spent(), "peak_flops_per_second": self._meter.peak_flops},
            step_seconds=self._window.mean_step_seconds(),
            failed_metric_writes=self._writer.num_failed_writes,
        )

    def _end_span(self, done: int) -> None:
        self._goodput.close_span(done, self._window.take_busy())

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        with self._goodput, self._writer, self._progress:
            pass
