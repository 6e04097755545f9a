"""The window of steps: what it counts, when it stops a run, whose time a step's time is."""

import json
import time

import numpy as np
import pytest

from tpdiff_jax.optim.guard import TooManyBadSteps
from tpdiff_jax.run_log.step_window import StepWindow


class Pending:
    """A device scalar that is ready after some seconds, from the moment it is made."""

    def __init__(self, value, seconds=0.0):
        self._value, self._ready_at = value, time.perf_counter() + seconds

    def __array__(self, dtype=None, copy=None):
        time.sleep(max(0.0, self._ready_at - time.perf_counter()))
        return np.asarray(self._value, dtype)


def metrics(loss=1.0, *, bad_in_a_row=0, is_spike=False, seconds=0.0):
    return {
        "loss": Pending(np.float32(loss), seconds),
        "grad_norm": np.float32(2.0),
        "learning_rate": np.float32(0.1),
        "is_skipped": np.float32(bad_in_a_row > 0),
        "is_spike": np.float32(is_spike),
        "bad_in_a_row": np.float32(bad_in_a_row),
    }


def dispatch(window, step, **kwargs):
    window.dispatched(step, 0, metrics(**kwargs), time.perf_counter())


def test_a_steps_time_is_the_devices_even_when_the_loop_is_elsewhere():
    window = StepWindow(1, max_bad_steps=1)
    dispatch(window, 0, seconds=0.05)
    time.sleep(0.4)  # waiting for data, say
    window.wait()
    assert 0.04 < window.seconds[0] < 0.25
    (busy,) = window.take_busy()
    assert busy.end - busy.start == window.seconds[0] and not busy.is_skipped
    assert window.take_busy() == []


def test_programs_are_counted_apart_and_losses_by_stage():
    """Two stages of two shapes: programs 1 and 3 train the same stage."""
    window = StepWindow(2, max_bad_steps=9, num_buckets=2)
    for step, (program, loss) in enumerate(((1, 0.5), (3, 1.5), (3, 1.0))):
        window.dispatched(step, program, metrics(loss=loss), time.perf_counter())
    totals = json.loads(json.dumps(window.totals()))
    assert window.counts == [0, 1, 0, 2] and set(window.mean_step_seconds()) == {1, 3}
    again = StepWindow(2, totals, max_bad_steps=9, num_buckets=2)
    assert (again.counts, again.seconds) == (window.counts, window.seconds)
    assert window.close()["loss_stage_1"] == pytest.approx(1.0)


def test_the_last_steps_own_loss_survives_as_it_was():
    window = StepWindow(1, max_bad_steps=1)
    for step, loss in enumerate((0.3, 0.1)):
        dispatch(window, step, loss=loss)
    line = window.close()
    assert np.float32(line["step_loss"]) == np.float32(0.1)
    assert line["loss"] == pytest.approx(0.2)
    assert line["step_grad_norm"] == 2.0
    assert not {"is_skipped", "is_spike", "bad_in_a_row"} & set(line)


def test_a_window_cut_by_a_restart_has_the_bits_of_an_uncut_one():
    losses = (0.1, np.nan, 0.7, 1.3, 0.2)
    whole, cut = StepWindow(1, max_bad_steps=9), StepWindow(1, max_bad_steps=9)
    for step, loss in enumerate(losses):
        dispatch(whole, step, loss=loss)
        if step in (2, 4):  # saved, killed, started again from the checkpoint's JSON
            cut = StepWindow(1, json.loads(json.dumps(cut.totals())), max_bad_steps=9)
        dispatch(cut, step, loss=loss)
    lines = [
        {name: value for name, value in window.close().items() if "seconds" not in name}
        for window in (whole, cut)
    ]
    assert lines[0] == lines[1]
    assert (
        lines[1]["loss"] == lines[1]["loss_stage_0"] == pytest.approx((0.1 + 0.7 + 1.3 + 0.2) / 4)
    )
    assert cut.totals()["window"] == {}, "the next window starts empty"


def test_a_window_without_a_finite_loss_says_so():
    window = StepWindow(1, max_bad_steps=9)
    dispatch(window, 0, loss=np.nan)
    assert np.isnan(window.close()["loss"])


def test_skipped_steps_are_counted_and_kept_for_the_checkpoint():
    window = StepWindow(1, max_bad_steps=5)
    dispatch(window, 0, loss=np.nan, bad_in_a_row=1)
    dispatch(window, 1, bad_in_a_row=2, is_spike=True)
    dispatch(window, 2)
    totals = window.totals()
    assert (totals["skipped_steps"], totals["spike_steps"], totals["steps_stage_0"]) == (2, 1, 3)
    again = StepWindow(1, totals, max_bad_steps=5)
    assert (again.num_skipped, again.num_spikes, again.counts) == (2, 1, [3])


def test_too_many_bad_steps_stop_every_wait_at_that_very_step():
    """Two steps are in flight when the third bad one is dispatched; none of later steps counts."""
    window = StepWindow(1, max_bad_steps=3, max_in_flight=2)
    for step, bad in enumerate((1, 2, 3, 0)):
        dispatch(window, step, bad_in_a_row=bad)
    with pytest.raises(TooManyBadSteps) as stop:
        window.totals()
    assert [bad.step for bad in stop.value.steps] == [0, 1, 2]
    assert stop.value.bad_in_a_row == 3
    assert sum(window.counts) == 3


def test_a_row_begun_before_a_restart_goes_on():
    """The count comes from the state, so a resumed run stops where the first one would have."""
    window = StepWindow(1, max_bad_steps=3)
    dispatch(window, 7, bad_in_a_row=3)
    with pytest.raises(TooManyBadSteps) as stop:
        window.wait()
    assert [bad.step for bad in stop.value.steps] == [7]
