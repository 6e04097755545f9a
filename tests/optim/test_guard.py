"""The guard by itself: what is a spike, what it remembers, what it never lets in."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.optim.guard import BadStep, GuardSpec, TooManyBadSteps, init_guard, judge_step

SPEC = GuardSpec(spike_factor=5.0, window=8, warmup_steps=4, max_bad_steps=3)
judge = jax.jit(judge_step, static_argnums=(0, 2))


def feed(spec, steps, num_stages=1, state=None):
    """Judge (stage, loss, gradient norm) one after another; return verdicts and memory."""
    state = state if state is not None else init_guard(spec, num_stages)
    verdicts = []
    for stage, loss, grad_norm in steps:
        verdict, state = judge(spec, state, stage, jnp.float32(loss), jnp.float32(grad_norm))
        verdicts.append(jax.tree.map(np.asarray, verdict))
    return verdicts, state


def good(count, stage=0, loss=1.0, grad_norm=2.0):
    return [(stage, loss, grad_norm)] * count


@pytest.mark.parametrize(
    ("loss", "grad_norm", "is_good"),
    [
        (4.99, 9.99, True),
        (5.01, 2.0, False),  # the loss alone
        (1.0, 10.01, False),  # the gradient norm alone
        (0.0, 0.0, True),
        (math.nan, 2.0, False),
        (1.0, math.inf, False),
    ],
)
def test_a_step_is_skipped_above_the_factor_or_when_not_finite(loss, grad_norm, is_good):
    verdicts, _ = feed(SPEC, [*good(4), (0, loss, grad_norm)])
    assert [bool(v.is_good) for v in verdicts] == [True] * 4 + [is_good]
    is_finite = math.isfinite(loss) and math.isfinite(grad_norm)
    assert bool(verdicts[-1].is_spike) == (not is_good and is_finite)


def test_not_finite_is_bad_from_the_first_step_and_spikes_after_the_warm_up():
    verdicts, _ = feed(SPEC, [(0, math.nan, 1.0), *good(3), (0, 1e6, 1e6), *good(1)])
    assert [bool(v.is_good) for v in verdicts] == [False, True, True, True, True, True]


def test_without_a_factor_only_non_finite_steps_are_bad():
    spec = GuardSpec(spike_factor=0.0, window=8, warmup_steps=1)
    verdicts, _ = feed(spec, [*good(8), (0, 1e30, 1e30), (0, -math.inf, 1.0)])
    assert [bool(v.is_good) for v in verdicts] == [True] * 9 + [False]


@pytest.mark.parametrize("bad", [(0, math.nan, math.nan), (0, math.inf, 1.0), (0, 50.0, 1.0)])
def test_bad_steps_leave_no_trace_in_the_statistics(bad):
    """Whatever number of bad steps comes between, the next good one finds the same threshold."""
    steps = [(0, 1.0 + 0.1 * k, 2.0 - 0.1 * k) for k in range(12)]
    _, clean = feed(SPEC, steps)
    disturbed = [*steps[:6], *[bad] * 20, *steps[6:]]
    verdicts, dirty = feed(SPEC, disturbed)
    np.testing.assert_array_equal(clean.accepted, dirty.accepted)
    assert sum(not v.is_good for v in verdicts) == 20
    assert np.all(np.isfinite(dirty.accepted))


def test_the_threshold_is_the_median_of_the_last_accepted_steps():
    """A mean over 1, 1, 1, 1, 4.9 x 3 would be 2.67 and let 10 pass; the median 1 does not."""
    verdicts, state = feed(SPEC, [*good(4), *good(3, loss=4.9), (0, 10.0, 2.0)])
    assert not verdicts[-1].is_good
    # Eight accepted steps later the first ones are forgotten and 10 is nothing special.
    verdicts, _ = feed(SPEC, [*good(5, loss=4.9), (0, 10.0, 2.0)], state=state)
    assert verdicts[-1].is_good


def test_each_stage_is_compared_with_its_own_steps():
    steps = [*good(4, stage=0), *good(4, stage=1, loss=100.0, grad_norm=200.0)]
    verdicts, _ = feed(SPEC, [*steps, (1, 100.0, 200.0), (0, 100.0, 200.0)], num_stages=2)
    assert [bool(v.is_good) for v in verdicts[-2:]] == [True, False]


def test_bad_steps_in_a_row_are_counted_over_all_stages_and_within_each():
    nan = math.nan
    steps = [(0, nan, 1.0), (1, nan, 1.0), (1, 1.0, 1.0), (0, nan, 1.0), (1, 1.0, 1.0)]
    steps += [(0, nan, 1.0), (0, 1.0, 1.0), (0, nan, 1.0)]
    verdicts, _ = feed(SPEC, steps, num_stages=2)
    assert [int(v.bad_in_a_row) for v in verdicts] == [1, 2, 0, 2, 0, 3, 0, 1]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"spike_factor": 1.0}, "guard.spike_factor=1.0"),
        ({"spike_factor": -2.0}, "guard.spike_factor=-2.0"),
        ({"spike_factor": math.nan}, "guard.spike_factor=nan"),
        ({"spike_factor": math.inf}, "guard.spike_factor=inf"),
        ({"window": 0}, "guard.window is 0; allowed: at least 1"),
        ({"window": 1025}, "guard.window=1025"),
        ({"warmup_steps": 0}, "guard.warmup_steps is 0; allowed: at least 1"),
        ({"max_bad_steps": 0}, "guard.max_bad_steps is 0; allowed: at least 1"),
        ({"window": 8, "warmup_steps": 9}, "guard.warmup_steps=9"),
    ],
)
def test_wrong_fields_are_refused_by_name(fields, named):
    with pytest.raises(ValueError, match=named):
        GuardSpec(**fields)


def test_messages_say_which_step_and_why():
    spike = BadStep(step=6, stage=1, loss=2.5, grad_norm=1e4, is_spike=True)
    assert str(spike) == "skipped step 7 (stage 1), a spike: loss 2.5, gradient norm 10000"
    stop = TooManyBadSteps(3, (spike._replace(loss=math.nan, is_spike=False),))
    assert "3 bad steps in a row" in str(stop) and "not finite: loss nan" in str(stop)
