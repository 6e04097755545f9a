"""The time shift: an even time u drawn and stepped through, t = s u / (1 + (s - 1) u) of it.

Expected values are Wan's published grid, closed forms of the shifted law, and numpy.
"""

import jax
import numpy as np
import pytest

from tpdiff_jax.method import (
    DDIMPath,
    FlowPath,
    SamplerSpec,
    loss_weight,
    make_pyramid,
    mean_loss_weight,
    sample_from_noise,
    sample_times,
)

SHIFTS = (0.25, 1.0, 3.0, 5.0, 12.0)
BATCH = 4096


def pyramid(shift, strides=(4, 2, 1), path=None, **fields):
    path = FlowPath() if path is None else path
    return make_pyramid(path, shape=(9, 1, 1), strides=strides, time_shift=shift, **fields)


def u_of(t, s):
    """The inverse, from 1/t - 1 = (1/u - 1) / s."""
    t = np.float64(t)
    with np.errstate(divide="ignore"):
        return 1.0 / (1.0 + s * (1.0 / t - 1.0))


def grid_of(pyramid, steps):
    """The times at which the sampler calls the network, of each stage."""
    seen = []

    def predict(x, t, positions, strides, cond):
        jax.debug.callback(lambda time: seen.append(float(time[0]) / 1000.0), t, ordered=True)
        return 0.0 * x

    noises = [np.zeros((1, *stage.shape, 1), np.float32) for stage in pyramid.stages]
    sample_from_noise(predict, pyramid, SamplerSpec(steps_per_stage=steps), noises)
    jax.effects_barrier()
    return np.split(np.array(seen), np.cumsum(steps)[:-1])


def test_one_stage_steps_through_wan_s_published_grid():
    """Shift 3, ten steps: 1000, 964, 923, 875, 818, 750, 667, 563, 429, 250."""
    (grid,) = grid_of(pyramid(3.0, strides=(1,)), (10,))
    sigma = 1.0 - np.arange(10) / 10.0
    np.testing.assert_allclose(grid, 3.0 * sigma / (1.0 + 2.0 * sigma), atol=1e-6)
    published = [1000, 964, 923, 875, 818, 750, 667, 563, 429, 250]
    np.testing.assert_allclose(1000.0 * grid, published, atol=0.51)


@pytest.mark.parametrize("shift", SHIFTS)
def test_every_stage_steps_evenly_in_u_and_keeps_its_ends(shift):
    shifted, steps = pyramid(shift), (5, 3, 4)
    for stage, grid, n in zip(shifted.stages, grid_of(shifted, steps), steps, strict=True):
        expected = np.linspace(u_of(stage.t_start, shift), u_of(stage.t_end, shift), n + 1)[:-1]
        np.testing.assert_allclose(u_of(grid, shift), expected, rtol=2e-5)
        assert grid[0] == pytest.approx(stage.t_start, rel=1e-7)


@pytest.mark.parametrize("path", [FlowPath(), DDIMPath()], ids=["flow", "ddim"])
def test_windows_and_jumps_do_not_move(path):
    plain, shifted = pyramid(1.0, path=path), pyramid(5.0, path=path)
    for one, other in zip(plain.stages, shifted.stages, strict=True):
        assert (one.t_start, one.t_end) == (other.t_start, other.t_end)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("stage_index", [0, 1, 2])
def test_drawn_times_are_uniform_in_u_within_their_window(shift, stage_index):
    """Stratified: one time in each b-th of the window in u, so quantiles are known to 1 / b."""
    shifted = pyramid(shift)
    stage = shifted.stages[stage_index]
    t = np.asarray(sample_times(shifted, stage_index, jax.random.key(0), BATCH))
    assert t.dtype == np.float32 and t.min() >= np.float32(stage.t_end)
    assert t.max() < np.float32(stage.t_start)
    ends = u_of(stage.t_end, shift), u_of(stage.t_start, shift)
    share = (np.sort(u_of(t, shift)) - ends[0]) / (ends[1] - ends[0])
    np.testing.assert_allclose(share, (np.arange(BATCH) + 0.5) / BATCH, atol=0.51 / BATCH + 1e-5)


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_mean_drawn_time_of_one_stage_is_the_closed_form(shift):
    """E t = s / (s - 1) (1 - log(s) / (s - 1)), and 1/2 for s = 1."""
    t = sample_times(pyramid(shift, strides=(1,)), 0, jax.random.key(0), BATCH)
    s = shift
    expected = 0.5 if s == 1.0 else s / (s - 1.0) * (1.0 - np.log(s) / (s - 1.0))
    assert float(np.mean(np.float64(t))) == pytest.approx(expected, abs=1e-4)


def test_without_a_shift_nothing_changes_by_a_bit():
    plain = make_pyramid(FlowPath(), shape=(9, 1, 1))
    for i, stage in enumerate(plain.stages):
        t = sample_times(plain, i, jax.random.key(3), 64)
        key_order, key_offset = jax.random.split(jax.random.key(3))
        share = jax.random.permutation(key_order, 64) + jax.random.uniform(key_offset, (64,))
        expected = stage.t_end + (stage.t_start - stage.t_end) * (share / 64)
        np.testing.assert_array_equal(t, np.clip(expected, np.float32(stage.t_end), 1.0))


@pytest.mark.parametrize("shift", SHIFTS)
def test_equal_stage_weights_are_equal_over_the_times_drawn(shift):
    """The mean of 1 / max(t, 0.2)^2 over u, by its integral in u."""
    path = FlowPath(prediction="data")
    equal = pyramid(shift, path=path, stage_weighting="equal")
    for i, stage in enumerate(equal.stages):
        t = sample_times(equal, i, jax.random.key(1), BATCH)
        assert float(np.mean(loss_weight(equal, i, t))) == pytest.approx(1.0, rel=2e-3)
        u = np.linspace(u_of(stage.t_end, shift), u_of(stage.t_start, shift), 400_001)
        times = shift * u / (1.0 + (shift - 1.0) * u)
        weights = np.maximum(times, 0.2) ** -2.0
        expected = np.trapezoid(weights, u) / (u[-1] - u[0])
        assert mean_loss_weight(equal, i) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shift", [0.0, -1.0, float("nan"), float("inf")])
def test_a_shift_that_is_none_is_refused(shift):
    with pytest.raises(
        ValueError, match=r"pyramid\.time_shift is .*; allowed: \[1e-06, 1000000\.0\]"
    ):
        pyramid(shift)
