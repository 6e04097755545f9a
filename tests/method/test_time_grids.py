"""Grids of noise times: bent by a power, or given; what they cost the exact predictor.

Expected times are numpy's, from the formulas of `method.time_grids`; the error of a grid is the
Wasserstein distance of the law that the real sampler returns with the closed-form predictor.
"""

import jax
import numpy as np
import pytest

from tests.method.gaussian_world import (
    GaussianWorld,
    moving_video_law,
    sampled_law,
    symmetric_root,
)
from tpdiff_jax.method import DDIMPath, FlowPath, SamplerSpec, make_pyramid, sample_from_noise
from tpdiff_jax.method.time_grids import time_grids

STEPS = (5, 3, 4)


def pyramid(shift=1.0, strides=(4, 2, 1), path=None):
    path = FlowPath() if path is None else path
    return make_pyramid(path, shape=(8, 1, 1), strides=strides, time_shift=shift)


def grids(of, powers, steps=STEPS):
    return time_grids(of, SamplerSpec(steps_per_stage=steps, grid_power=powers))


@pytest.mark.parametrize("powers", [1.5, (1.0, 1.5, 3.0), [2.0], np.array([0.5, 1.0, 2.0])])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_steps_start_at_powers_of_even_shares_of_the_window(powers, shift):
    bent = pyramid(shift)
    one_a_stage = np.broadcast_to(powers, 3)
    for stage, grid, n, power in zip(
        bent.stages, grids(bent, powers), STEPS, one_a_stage, strict=True
    ):
        u_start, u_end = (t / (shift - (shift - 1.0) * t) for t in (stage.t_start, stage.t_end))
        u = u_end + (u_start - u_end) * (1.0 - np.arange(n + 1) / n) ** power
        np.testing.assert_allclose(grid, shift * u / (1.0 + (shift - 1.0) * u), atol=1e-15)
        assert (grid[0], grid[-1]) == (stage.t_start, stage.t_end)


@pytest.mark.parametrize("path", [FlowPath(), DDIMPath()], ids=["flow", "ddim"])
def test_without_a_power_grids_are_even_to_the_last_bit(path):
    even = pyramid(path=path)
    default = time_grids(even, SamplerSpec(steps_per_stage=STEPS))
    for stage, grid, n in zip(even.stages, default, STEPS, strict=True):
        expected = stage.t_end + (stage.t_start - stage.t_end) * np.linspace(1.0, 0.0, n + 1)
        expected[0], expected[-1] = stage.t_start, stage.t_end
        np.testing.assert_array_equal(grid, expected)
    for same in (1, 1.0, (1.0,), (1.0, 1.0, 1.0)):
        np.testing.assert_array_equal(np.concatenate(grids(even, same)), np.concatenate(default))


@pytest.mark.parametrize("power", [1.5, 0.7])
def test_the_sampler_steps_through_the_grid(power):
    seen = []

    def predict(x, t, positions, strides, cond):
        jax.debug.callback(lambda time: seen.append(float(time[0]) / 1000.0), t, ordered=True)
        return 0.0 * x

    bent = pyramid()
    noises = [np.zeros((1, *stage.shape, 1), np.float32) for stage in bent.stages]
    sample_from_noise(predict, bent, SamplerSpec(steps_per_stage=STEPS, grid_power=power), noises)
    jax.effects_barrier()
    expected = np.concatenate([grid[:-1] for grid in grids(bent, power)])
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


def wasserstein(law, world):
    """W_2 of two Gaussian laws."""
    mean, cov = law
    root = symmetric_root(cov)
    cross = np.trace(symmetric_root(root @ world.cov @ root))
    square = np.trace(cov) + np.trace(world.cov) - 2.0 * cross
    return np.sqrt(max(square, 0.0) + np.sum((mean - world.mean) ** 2))


@pytest.mark.parametrize("strides", [(1,), (4, 2, 1)])
@pytest.mark.parametrize(
    "path",
    [DDIMPath(zero_terminal_snr=True), DDIMPath(prediction="eps")],
    ids=["v", "eps"],
)
def test_ddim_samples_a_nearer_law_where_steps_shrink_towards_the_end_of_a_stage(path, strides):
    """Towards the data nu falls like the square root of t: even steps in t are too long there."""
    with jax.enable_x64(True):
        world = GaussianWorld(pyramid(path=path, strides=strides), "stride", "nearest",
                              *moving_video_law(8))  # fmt: skip
        steps = (30 // len(strides),) * len(strides)
        found = {
            power: wasserstein(
                sampled_law(
                    world,
                    SamplerSpec(steps_per_stage=steps, grid_power=power),
                    start_law=world.start_law(),
                ),
                world,
            )
            for power in (1.0, 1.5)
        }
    assert found[1.5] < 0.8 * found[1.0]


@pytest.mark.parametrize(
    "power", [0.0, -1.0, float("nan"), float("inf"), (1.0, 2.0), (), "a", None, (1.0, 1.0, "b")]
)
def test_a_power_that_is_none_is_refused(power):
    with pytest.raises(ValueError, match=r"sample\.grid_power is .*; allowed: one finite and posi"):
        SamplerSpec(steps_per_stage=STEPS, grid_power=power)


@pytest.mark.parametrize("power", [200.0, 1e-9, (1.0, 60.0, 1.0)])
def test_a_power_under_which_times_fall_together_is_refused(power):
    with pytest.raises(ValueError, match=r"sample\.grid_power is .* of stage . are one in float32"):
        grids(pyramid(), power)


def test_a_given_grid_leaves_no_power():
    given = [grid.tolist() for grid in grids(pyramid(), 1.5)]
    spec = SamplerSpec(steps_per_stage=STEPS, time_grids=given)
    for one, other in zip(time_grids(pyramid(), spec), given, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"sample\.grid_power is \(2.0,\) with sample\.time_grids"):
        SamplerSpec(steps_per_stage=STEPS, time_grids=given, grid_power=2.0)


@pytest.mark.parametrize(
    "times",
    [1.0, "late", (1.0, 0.5), ((1.0, "a"),), ((1.0, float("nan")),), ((2.0, 0.0),), ((1.0,),),
     ((1.0, -0.1),), ((True, False),), (None,), ((),)],
)  # fmt: skip
def test_grids_that_are_no_noise_times_are_refused(times):
    with pytest.raises(ValueError, match=r"sample\.time_grids is .*; allowed: one grid for each"):
        SamplerSpec(steps_per_stage=(1,), time_grids=times)
