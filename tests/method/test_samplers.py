"""Samplers solve each stage's ODE at their order, jump in between, and are one program."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.sampler_spec import SamplerSpec, split_steps
from tpdiff_jax.method.samplers import sample, sample_from_noise
from tpdiff_jax.method.stages import make_pyramid

VANILLA = make_pyramid(FlowPath(), shape=(4, 1, 1), strides=(1,))
PYRAMID = make_pyramid(FlowPath(), shape=(8, 1, 1), strides=(4, 2, 1))
LARGER = make_pyramid(FlowPath(), shape=(8, 2, 2), strides=(4, 2, 1))


def smooth_network(x_t, t, positions, strides, cond):
    """Any smooth function that mixes frames and pixels and sees all its arguments."""
    frames = positions.frames[:, None, None, None] / 8.0
    hidden = jnp.tanh(x_t + 0.3 * jnp.mean(x_t, axis=(1, 2), keepdims=True) + frames)
    return hidden * jnp.cos(t / 400.0)[:, None, None, None, None] / strides[0]


def solver_errors(path, predict, exact, solver, grid_of):
    """Error at t = 0 for 20, 40 and 80 steps of one stage, from x = 1."""
    pyramid = make_pyramid(path, shape=(1, 1, 1), strides=(1,))
    with jax.enable_x64(True):
        found = []
        for steps in (20, 40, 80):
            spec = SamplerSpec(
                steps_per_stage=(steps,), solver=solver, time_grids=(tuple(grid_of(steps)),)
            )
            x = sample_from_noise(predict, pyramid, spec, (jnp.ones((1, 1, 1, 1, 1), float),))
            found.append(abs(float(x.squeeze()) - exact))
    return np.asarray(found)


FLOW_GRIDS = {
    "uniform": lambda steps: np.linspace(1.0, 0.0, steps + 1),
    "quadratic": lambda steps: np.linspace(1.0, 0.0, steps + 1) ** 2,
    "uneven": lambda steps: (
        np.linspace(1.0, 0.0, steps + 1)
        + 0.2 / steps * np.sin(2.5 * np.arange(steps + 1)) * (np.arange(steps + 1) % steps > 0)
    ),
}


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("second_order", 2)])
@pytest.mark.parametrize("grid", list(FLOW_GRIDS))
def test_flow_solvers_converge_at_their_order_on_a_known_ode(solver, order, grid):
    """dx/dt = cos(3t) x, so that x(0) = x(1) exp(-sin(3)/3)."""

    def predict(x_t, t, *_):
        return x_t * jnp.cos(3.0 * t.astype(float) / 1000.0)[:, None, None, None, None]

    exact = math.exp(-math.sin(3.0) / 3.0)
    found = solver_errors(FlowPath(), predict, exact, solver, FLOW_GRIDS[grid])
    rates = np.log2(found[:-1] / found[1:])
    assert np.all(np.abs(rates - order) < 0.3), rates


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("second_order", 2)])
@pytest.mark.parametrize("warp", [1.0, 1.3])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_ddim_solvers_converge_at_their_order_on_a_known_ode(solver, order, warp, prediction):
    """Data of variance 1/4: eps = nu y / (1/4 + nu^2), y = x/gamma, so y ~ sqrt(1/4 + nu^2)."""
    path = DDIMPath(final_alpha="first", prediction=prediction)
    nu_1, nu_0 = path.host_scales(1.0).nu, path.host_scales(0.0).nu

    def predict(x_t, t, *_):
        time = (t.astype(float) + 1.0) / 1000.0
        gamma, sigma = (s[:, None, None, None, None] for s in (path.gamma(time), path.sigma(time)))
        # From x_t = gamma a + sigma eps, with variances 1/4 and 1.
        eps = sigma * x_t / (gamma**2 / 4.0 + sigma**2)
        data = gamma / 4.0 * x_t / (gamma**2 / 4.0 + sigma**2)
        return eps if prediction == "eps" else gamma * eps - sigma * data

    def grid_of(steps):
        """Even in log(nu), or bent; nu is the same at t = 1/1000 and t = 0 on this path."""
        share = np.linspace(0.0, 1.0, steps + 1) ** warp
        inner = [path.t_from_nu(nu_1 * (nu_0 / nu_1) ** s) for s in share[1:-1]]
        return [1.0, *inner, 0.0]

    gammas = [path.host_scales(t).gamma for t in (1.0, 0.0)]
    exact = gammas[1] / gammas[0] * math.sqrt((0.25 + nu_0**2) / (0.25 + nu_1**2))
    rates = np.log2(np.divide(*(lambda e: (e[:-1], e[1:]))(
        solver_errors(path, predict, exact, solver, grid_of))))  # fmt: skip
    assert np.all(np.abs(rates - order) < 0.35), rates


def test_zero_terminal_snr_and_the_clean_end_stay_finite_at_second_order():
    path = DDIMPath(zero_terminal_snr=True)
    pyramid = make_pyramid(path, shape=(8, 2, 2))
    spec = SamplerSpec(steps_per_stage=(3, 3, 3), solver="second_order")
    out = sample(smooth_network, pyramid, spec, jax.random.split(jax.random.key(0), 2), 1)
    assert np.isfinite(out).all()


def test_solver_history_never_crosses_a_jump():
    """With one step a stage, second order has no history to use and must equal first order."""
    keys = jax.random.split(jax.random.key(0), 2)
    for path in (FlowPath(), DDIMPath()):
        pyramid = make_pyramid(path, shape=(8, 2, 2))
        first, second = (
            sample(smooth_network, pyramid, SamplerSpec(steps_per_stage=(1, 1, 1), solver=solver),
                   keys, 1) for solver in ("euler", "second_order"))  # fmt: skip
        np.testing.assert_array_equal(first, second)


def test_network_is_traced_once_a_stage_however_many_steps_it_takes():
    """The whole is one program, and it does not grow with the steps."""
    seen = []

    def network(x_t, t, positions, strides, cond):
        seen.append((x_t.shape, t.shape, t.dtype, positions.frames.shape, strides))
        return x_t

    spec = SamplerSpec(steps_per_stage=(50, 40, 30))
    run = jax.jit(lambda keys: sample(network, LARGER, spec, keys, 1))
    lowered = run.lower(jax.random.split(jax.random.key(0), 3))
    assert lowered.compile() is not None
    assert seen == [
        ((3, 2, 2, 2, 1), (3,), jnp.float32, (2,), (4, 1, 1)),
        ((3, 4, 2, 2, 1), (3,), jnp.float32, (4,), (2, 1, 1)),
        ((3, 8, 2, 2, 1), (3,), jnp.float32, (8,), (1, 1, 1)),
    ]


@pytest.mark.parametrize("path", [FlowPath(), DDIMPath()])
def test_network_is_told_the_time_and_the_frame_positions_of_its_stage(path):
    pyramid, times, places = make_pyramid(path, shape=(8, 1, 1)), {1: [], 2: [], 4: []}, {}

    def network(x_t, t, positions, strides, cond):
        def record(time, frames):
            times[strides[0]].append(float(time[0]))
            places[strides[0]] = frames.tolist()

        jax.debug.callback(record, t, positions.frames, ordered=True)
        return x_t

    sample(network, pyramid, SamplerSpec(steps_per_stage=(4, 4, 4)),
           jax.random.split(jax.random.key(0), 2), 1)  # fmt: skip
    jax.effects_barrier()
    offset = 0.0 if isinstance(path, FlowPath) else 1.0
    for stage in pyramid.stages:
        grid = np.linspace(stage.t_start, stage.t_end, 5)[:-1]
        np.testing.assert_allclose(times[stage.strides[0]], 1000.0 * grid - offset, atol=1e-3)
    assert places == {4: [0, 4], 2: [0, 2, 4, 6], 1: [0, 1, 2, 3, 4, 5, 6, 7]}


def test_guidance_scale_is_taken_per_stage():
    """With answers of 1 and 0 to condition and null, a stage moves by its scale times s - e."""

    def network(x_t, t, positions, strides, cond):
        return jnp.ones_like(x_t) * cond["on"][:, None, None, None, None]

    cond, null = {"on": jnp.ones(1)}, {"on": jnp.zeros(1)}
    noises = tuple(jnp.zeros((1, stage.num_frames, 1, 1, 1)) for stage in PYRAMID.stages)
    spec = SamplerSpec(steps_per_stage=(2, 2, 2), guidance_scale=(1.0, 2.0, 4.0))
    x = sample_from_noise(network, PYRAMID, spec, noises, cond, null)
    expected = 0.0
    for stage, scale in zip(PYRAMID.stages, spec.guidance_scale, strict=True):
        if stage.index:
            expected *= (1.0 - stage.t_start) / (1.0 - PYRAMID.stages[stage.index - 1].t_end)
        expected -= scale * (stage.t_start - stage.t_end)
    np.testing.assert_allclose(x, expected, rtol=1e-5)
    one = dataclasses.replace(spec, guidance_scale=(2.0,))
    three = dataclasses.replace(spec, guidance_scale=(2.0, 2.0, 2.0))
    runs = [sample_from_noise(network, PYRAMID, s, noises, cond, null) for s in (one, three)]
    np.testing.assert_array_equal(*runs)


def test_guidance_without_a_null_condition_is_refused():
    spec = SamplerSpec(steps_per_stage=(1, 1, 1), guidance_scale=(3.0,))
    with pytest.raises(ValueError, match=r"sample\.guidance_scale is 3\.0"):
        sample(smooth_network, PYRAMID, spec, jax.random.split(jax.random.key(0), 1), 1)


def test_jump_noises_are_fresh_and_each_video_has_its_own():
    """A network that stands still leaves the jumps' sums of noises: white over frames for flow."""
    keys = jax.random.split(jax.random.key(0), 4096)
    still = lambda x_t, t, *_: jnp.zeros_like(x_t)  # noqa: E731
    x = sample(still, PYRAMID, SamplerSpec(steps_per_stage=(1, 1, 1)), keys, 1)
    # With x standing still at level sigma_s of each jump the covariance is known:
    cov = np.eye(2)
    for before, stage in zip(PYRAMID.stages[:-1], PYRAMID.stages[1:], strict=True):
        repeat = np.kron(np.eye(before.num_frames), np.ones((2, 1)))
        scale = (1.0 - stage.t_start) / (1.0 - before.t_end)
        fresh = np.eye(stage.num_frames) - repeat @ repeat.T / 2.0
        cov = scale**2 * repeat @ cov @ repeat.T + stage.t_start**2 * fresh
    np.testing.assert_allclose(np.cov(np.asarray(x)[..., 0, 0, 0].T), cov, atol=0.08)


@pytest.mark.parametrize("path", [FlowPath(), DDIMPath()])
def test_a_video_does_not_depend_on_the_batch_it_is_sampled_in(path):
    pyramid = make_pyramid(path, shape=(8, 4, 4))
    spec = SamplerSpec(steps_per_stage=(4, 4, 4), solver="second_order")
    keys = jax.random.split(jax.random.key(5), 8)
    run = jax.jit(lambda k: sample(smooth_network, pyramid, spec, k, 2))
    whole = np.asarray(run(keys))
    for size in (1, 2, 4):
        parts = [run(keys[start : start + size]) for start in range(0, 8, size)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)


def test_a_time_grid_equal_to_the_uniform_one_changes_nothing():
    steps, keys = (3, 4, 5), jax.random.split(jax.random.key(0), 2)
    grids = tuple(tuple(np.linspace(stage.t_start, stage.t_end, n + 1).tolist())
                  for stage, n in zip(PYRAMID.stages, steps, strict=True))  # fmt: skip
    plain, explicit = (
        sample(smooth_network, PYRAMID, SamplerSpec(steps_per_stage=steps, time_grids=g), keys,
               1) for g in ((), grids))  # fmt: skip
    np.testing.assert_array_equal(plain, explicit)


@pytest.mark.parametrize(
    ("num_steps", "num_stages", "expected"),
    [(30, 3, (10, 10, 10)), (30, 4, (8, 8, 7, 7)), (5, 3, (2, 2, 1)), (3, 3, (1, 1, 1))],
)
def test_steps_are_shared_equally_and_the_rest_goes_to_the_cheapest_stages(
    num_steps, num_stages, expected
):
    assert split_steps(num_steps, num_stages) == expected


def test_fewer_steps_than_stages_are_refused():
    with pytest.raises(ValueError, match=r"sample\.num_steps is 2"):
        split_steps(2, 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("solver", "heun"),
        ("steps_per_stage", ()),
        ("steps_per_stage", (3, 0)),
        ("guidance_scale", ()),
        ("guidance_scale", (1.0, 2.0, 3.0)),
        ("guidance_scale", (math.nan,)),
        ("time_grids", ((1.0, 0.5),)),
        ("time_grids", ((1.0, 0.5, 0.4), (0.5, 0.2))),
        ("time_grids", ((1.0, 0.5, 0.6), (0.5, 0.2, 0.0))),
    ],
)
def test_invalid_specs_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"sample\.{field} (is|has)"):
        SamplerSpec(**{"steps_per_stage": (2, 2), field: value})


def test_specs_that_do_not_fit_the_pyramid_are_refused():
    keys = jax.random.split(jax.random.key(0), 1)
    with pytest.raises(ValueError, match=r"sample\.steps_per_stage is \(3,\)"):
        sample(smooth_network, PYRAMID, SamplerSpec(steps_per_stage=(3,)), keys, 1)
    late_end = SamplerSpec(steps_per_stage=(2,), time_grids=((1.0, 0.5, 0.1),))
    with pytest.raises(ValueError, match=r"sample\.time_grids of stage 0"):
        sample(smooth_network, VANILLA, late_end, keys, 1)
