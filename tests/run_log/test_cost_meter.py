"""What was spent and how fast, by hand from counts of steps."""

import pytest

from tests.run_log.ledgers import COSTS, Clock
from tpdiff_jax.run_log.cost_meter import CostMeter
from tpdiff_jax.run_log.step_window import StepWindow


def window_of(counts: list[int], seconds: list[float]) -> StepWindow:
    totals = {f"steps_stage_{i}": n for i, n in enumerate(counts)}
    totals |= {f"seconds_stage_{i}": s for i, s in enumerate(seconds)}  # type: ignore[misc]
    return StepWindow(len(counts), totals | {"skipped_steps": 3, "spike_steps": 2}, max_bad_steps=9)


def test_spent_is_every_count_times_its_cost() -> None:
    meter = CostMeter(COSTS, window_of([3, 2], [0.5, 0.25]), peak_flops=1.0)
    assert meter.spent() == {
        "samples_seen": 3 * 8 + 2 * 8,
        "train_flops": 3 * 100.0 + 2 * 200.0,
        "counted_flops": 3 * 110.0 + 2 * 210.0,
        "train_seconds": 0.75,
        "skipped_steps": 3,
        "spike_steps": 2,
    }


def test_rates_are_those_since_the_last_call_clips_by_the_clock_and_flops_by_device_time() -> None:
    window, clock = window_of([100, 100], [9.0, 9.0]), Clock()
    meter = CostMeter(COSTS, window, peak_flops=4000.0, clock=clock)
    for new in (1, 3):  # what came before the meter was made counts for no rate
        clock.work(2.0)
        window.counts[1] += new
        window.seconds[1] += 0.5
        assert meter.rates() == {
            "videos_per_second": new * 8 / 2.0,
            "frames_per_second": new * 32 / 2.0,
            "flops_per_second": pytest.approx(new * 200.0 / 0.5),
            "peak_share": pytest.approx(new * 400.0 / 4000.0),
        }


def test_a_pause_takes_its_time_out_of_the_rates() -> None:
    window, clock = window_of([0, 0], [0.0, 0.0]), Clock()
    meter = CostMeter(COSTS, window, peak_flops=1.0, clock=clock)
    clock.work(1.0)
    with meter.paused():
        clock.work(100.0)
    window.counts[0] += 1
    assert meter.rates()["videos_per_second"] == 8.0


def test_a_meter_of_other_programs_than_the_windows_is_refused() -> None:
    with pytest.raises(ValueError):
        CostMeter(COSTS[:1], window_of([1, 1], [0.0, 0.0]), peak_flops=1.0).spent()


def test_a_clock_that_has_not_moved_stops_no_run() -> None:
    meter = CostMeter(COSTS, window_of([0, 0], [0.0, 0.0]), peak_flops=1.0, clock=Clock())
    assert meter.rates()["videos_per_second"] == 0.0
