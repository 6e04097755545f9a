"""The four verbs of the loop: what each writes, what each waits for, when each stops the run."""

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.run_log.ledgers import COSTS, Ledgers, step_metrics
from tpdiff_jax.optim.guard import TooManyBadSteps
from tpdiff_jax.run_log.run_log import RunLog

TIMING = ("seconds", "per_second", "peak_share")


class Slow:
    """A device scalar that is ready a while after it is made."""

    def __init__(self, seconds: float) -> None:
        self._ready_at = time.perf_counter() + seconds

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        time.sleep(max(0.0, self._ready_at - time.perf_counter()))
        return np.asarray(1.0, dtype)


def dispatch(log: RunLog, step: int, program: int = 0, **kwargs: Any) -> None:
    log.dispatched(step, program, step_metrics(**kwargs), time.perf_counter())


def test_a_line_holds_place_means_rates_totals_and_counts_in_this_order() -> None:
    ledgers = Ledgers()
    dispatch(ledgers.log, 0, 0, loss=1.0)
    dispatch(ledgers.log, 1, 1, loss=3.0)
    ledgers.clock.work(4.0)
    ledgers.log.line(2, {"stage": 1}, {"rejected_checkpoints": 5})
    (line,) = ledgers.sink.lines
    names = list(line)
    marks = ["step", "stage", "loss", "videos_per_second", "samples_seen", "rejected_checkpoints"]
    assert [name for name in names if name in marks] == marks
    assert (line["step"], line["stage"], line["rejected_checkpoints"]) == (2, 1, 5)
    assert (line["loss"], line["loss_stage_0"], line["loss_stage_1"]) == (2.0, 1.0, 3.0)
    assert line["samples_seen"] == 16 and isinstance(line["samples_seen"], int)
    assert (line["train_flops"], line["counted_flops"]) == (300.0, 320.0)
    assert (line["videos_per_second"], line["frames_per_second"]) == (16 / 4.0, 48 / 4.0)


def test_a_line_is_shown_on_the_terminal_and_ends_a_span_of_time() -> None:
    ledgers = Ledgers()
    dispatch(ledgers.log, 0, loss=0.5)
    ledgers.log.line(1, {"stage": 0}, {})
    assert ledgers.terminal.getvalue().startswith("train step 1/10 (10 %), loss_0 0.5, ")
    (span,) = ledgers.spans.lines
    assert (span["from_step"], span["step"]) == (0, 1)
    assert span["training_seconds"] == ledgers.window.seconds[0]


def test_the_terminal_moves_between_lines_once_a_second_with_each_stages_loss() -> None:
    """What is finished is shown: two steps may be in flight. Nothing is shown before there is."""
    ledgers = Ledgers()
    for step, seconds in enumerate((0.0, 0.5, 1.2, 1.4, 1.9, 2.3)):
        metrics = step_metrics(loss=float(step))
        ledgers.log.dispatched(step, step % 2, metrics, 1000.0 + seconds)
    first, second = ledgers.terminal.getvalue().splitlines()
    assert first.startswith("train step 1/10 (10 %), loss_0 0, ")
    assert second.startswith("train step 4/10 (40 %), loss_0 2, loss_1 3, ")


@pytest.mark.parametrize(
    ("part", "expected"), [("evaluation", 8 / 2.0), ("checkpoint", 8 / (2.0 + 30.0))]
)
def test_only_evaluations_are_left_out_of_the_rates(part: str, expected: float) -> None:
    ledgers = Ledgers()
    dispatch(ledgers.log, 0)
    ledgers.clock.work(2.0)
    with ledgers.log.spend(part):
        ledgers.clock.work(30.0)
    ledgers.log.line(1, {"stage": 0}, {})
    assert ledgers.sink.lines[0]["videos_per_second"] == pytest.approx(expected)


def test_what_is_spent_begins_when_the_device_is_free_and_counts_for_its_part() -> None:
    ledgers = Ledgers()
    dispatch(ledgers.log, 0, loss=Slow(0.1))
    with ledgers.log.spend("checkpoint", ends_at=1):
        assert ledgers.window.counts == [1, 0]
        time.sleep(0.05)
    (span,) = ledgers.spans.lines
    assert span["step"] == 1
    assert span["checkpoint_seconds"] == pytest.approx(0.05, abs=0.04)
    assert span["training_seconds"] >= 0.09


def test_spending_ends_a_span_only_where_it_says_so() -> None:
    ledgers = Ledgers()
    with ledgers.log.spend("evaluation"):
        pass
    assert ledgers.spans.lines == []
    with pytest.raises(RuntimeError), ledgers.log.spend("checkpoint", ends_at=1):
        raise RuntimeError("the save failed")
    assert ledgers.spans.lines == []


def test_a_part_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="part is 'lunch'; allowed: 'start', 'compile'"):
        with Ledgers().log.spend("lunch"):
            pass


def spend(log: RunLog) -> None:
    with log.spend("checkpoint", ends_at=4):
        raise AssertionError("nothing of the bad step may be saved")


@pytest.mark.parametrize(
    "verb",
    [
        lambda log: dispatch(log, 3),
        lambda log: log.line(3, {"stage": 0}, {}),
        spend,
        lambda log: log.totals(),
    ],
    ids=["dispatched", "line", "spend", "totals"],
)
def test_every_verb_stops_at_the_last_straw_and_writes_nothing(
    verb: Callable[[RunLog], None],
) -> None:
    ledgers = Ledgers(max_bad_steps=1)
    dispatch(ledgers.log, 0, bad_in_a_row=1)
    dispatch(ledgers.log, 1)
    with pytest.raises(TooManyBadSteps) as stop:
        verb(ledgers.log)
    assert [bad.step for bad in stop.value.steps] == [0]
    assert ledgers.sink.lines == ledgers.spans.lines == []


def test_a_log_that_goes_on_from_totals_writes_the_line_of_one_that_never_stopped() -> None:
    losses = (0.1, 0.7, 1.3, 0.2)
    whole, cut = Ledgers(), Ledgers()
    for step, loss in enumerate(losses):
        if step == 2:
            cut = Ledgers(json.loads(json.dumps(cut.log.totals())))
        for ledgers in (whole, cut):
            dispatch(ledgers.log, step, step % 2, loss=np.float32(loss))
    for ledgers in (whole, cut):
        ledgers.clock.work(1.0)
        ledgers.log.line(4, {"stage": 1}, {})
    lines = [
        {k: v for k, v in ledgers.sink.lines[0].items() if not any(word in k for word in TIMING)}
        for ledgers in (whole, cut)
    ]
    assert lines[0] == lines[1]
    assert lines[1]["samples_seen"] == 32


def test_an_evaluation_is_written_beside_what_it_had_cost_by_then() -> None:
    ledgers = Ledgers()
    for step in range(3):
        dispatch(ledgers.log, step, 1)
    ledgers.log.totals()
    ledgers.log.measured(3, {"eval/label_accuracy": 0.5})
    videos = {"samples": np.zeros((1, 2, 4, 4, 1), np.uint8)}
    ledgers.log.shown(3, videos)
    (line,) = ledgers.sink.lines
    assert (line["step"], line["eval/label_accuracy"]) == (3, 0.5)
    assert line["train_flops"] == 3 * COSTS[1].train_flops and "loss" not in line
    assert ledgers.sink.videos == [(3, videos)]


def test_the_figures_at_the_end_are_those_of_the_ledgers() -> None:
    ledgers = Ledgers()
    dispatch(ledgers.log, 0, 1)
    ledgers.log.totals()
    ledgers.log.line(1, {"stage": 1}, {"no number": np.zeros(3)})  # type: ignore[dict-item]
    figures = ledgers.log.figures()
    assert figures.failed_metric_writes == 1
    assert figures.step_seconds == {1: ledgers.window.seconds[1]}
    assert figures.timing["samples_seen"] == 8
    assert figures.timing["peak_flops_per_second"] == 1e3


def test_leaving_closes_every_ledger_and_writes_the_last_span_however_the_loop_ended() -> None:
    ledgers = Ledgers()
    with contextlib.suppress(KeyError), ledgers.log:
        dispatch(ledgers.log, 0)
        raise KeyError("the loop broke")
    assert ledgers.sink.is_closed and ledgers.spans.is_closed
    (span,) = ledgers.spans.lines
    assert span["wall_seconds"] > 0
