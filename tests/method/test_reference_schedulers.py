"""With one stage the sampler is the ordinary one: diffusers' schedulers on their own timesteps."""

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.sampler_spec import SamplerSpec
from tpdiff_jax.method.samplers import sample_from_noise
from tpdiff_jax.method.stage_line import output_to_line
from tpdiff_jax.method.stage_targets import training_point
from tpdiff_jax.method.stages import make_pyramid

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 3, 3, 2)
X_START = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def answer(x, t, lib):
    """A smooth network of x and network time, the same in torch and jax."""
    return 0.8 * lib.tanh(1.3 * x) + 0.2 * lib.sin(x + t / 300.0)


def network(x_t, t, positions, strides, cond):
    return answer(x_t, t[:, None, None, None, None], jnp)


def reference_sample(scheduler):
    """The reference's loop, from X_START over scheduler.timesteps."""
    x = torch.from_numpy(X_START)
    for t in scheduler.timesteps:
        x = scheduler.step(answer(x, t, torch), t, x).prev_sample
    return x.numpy()


def betas_of(schedule):
    """Arguments of a reference with one of the two schedules."""
    return BETAS | {"beta_schedule": schedule}


def our_sample(path, times, solver="euler"):
    pyramid = make_pyramid(path, shape=SHAPE[1:4], strides=(1,))
    grid = tuple(float(t) for t in times)
    spec = SamplerSpec(steps_per_stage=(len(grid) - 1,), solver=solver, time_grids=(grid,))
    return jax.jit(lambda x: sample_from_noise(network, pyramid, spec, (x,)))(X_START)


def ddim_times(scheduler):
    """The timestep list k as noise times (k+1)/1000, and the clean end."""
    return [*((scheduler.timesteps.numpy() + 1.0) / 1000.0), 0.0]


def relative_error(found, expected):
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


@pytest.mark.parametrize("final_alpha", ["one", "first"])
@pytest.mark.parametrize(("spacing", "offset"), [("leading", 1), ("leading", 0), ("trailing", 0)])
@pytest.mark.parametrize(("betas", "steps"), [("scaled_linear", 10), ("linear", 25)])
def test_one_stage_equals_ddim_with_eps_prediction(spacing, offset, final_alpha, betas, steps):
    """Stable Diffusion's betas and AnimateDiff's, with its 25 steps."""
    scheduler = diffusers.DDIMScheduler(
        **betas_of(betas), clip_sample=False, set_alpha_to_one=final_alpha == "one",
        timestep_spacing=spacing, steps_offset=offset, prediction_type="epsilon",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    path = DDIMPath(betas=betas, prediction="eps", final_alpha=final_alpha)
    found = our_sample(path, ddim_times(scheduler))
    assert relative_error(found, reference_sample(scheduler)) < 1e-5


def test_trailing_timesteps_are_the_uniform_grid():
    scheduler = diffusers.DDIMScheduler(**BETAS, timestep_spacing="trailing")
    scheduler.set_timesteps(20)
    np.testing.assert_allclose(ddim_times(scheduler), np.linspace(1.0, 0.0, 21), atol=1e-9)


def test_one_stage_equals_ddim_with_v_prediction_and_zero_terminal_snr():
    scheduler = diffusers.DDIMScheduler(
        **BETAS, clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing",
        prediction_type="v_prediction",
    )  # fmt: skip
    scheduler.set_timesteps(25)
    found = our_sample(DDIMPath(zero_terminal_snr=True), ddim_times(scheduler))
    assert relative_error(found, reference_sample(scheduler)) < 1e-5


@pytest.mark.parametrize(
    ("prediction", "betas"), [("eps", "scaled_linear"), ("v", "scaled_linear"), ("eps", "linear")]
)
def test_training_points_equal_the_ddpm_schedulers(prediction, betas):
    """add_noise, get_velocity and the data prediction of a step, at every kind of noise level."""
    scheduler = diffusers.DDPMScheduler(
        **betas_of(betas), clip_sample=False,
        prediction_type={"eps": "epsilon", "v": "v_prediction"}[prediction],
    )  # fmt: skip
    path = DDIMPath(betas=betas, prediction=prediction)
    pyramid = make_pyramid(path, shape=SHAPE[1:4], strides=(1,))
    rng = np.random.default_rng(1)
    x_0, eps = (rng.normal(size=SHAPE).astype(np.float32) for _ in range(2))
    for k in (0, 1, 250, 777, 999):
        steps = torch.full(SHAPE[:1], k)
        t = jnp.full(SHAPE[:1], (k + 1) / 1000.0)
        x_t, target = training_point(pyramid, 0, x_0, eps, t)
        theirs = [torch.from_numpy(a) for a in (x_0, eps)]
        noised = scheduler.add_noise(*theirs, steps)
        velocity = scheduler.get_velocity(*theirs, steps)
        assert relative_error(x_t, noised.numpy()) < 1e-5
        assert relative_error(target, velocity.numpy() if prediction == "v" else eps) < 1e-5
        output = np.sin(3.0 * x_0 + eps)
        data, _ = output_to_line(pyramid, 0, x_t, t, output)
        step = scheduler.step(torch.from_numpy(output), k, torch.from_numpy(np.array(x_t)))
        assert relative_error(data, step.pred_original_sample.numpy()) < 1e-5
        np.testing.assert_allclose(path.network_time(t), float(k), atol=1e-3)


@pytest.mark.parametrize("steps", [10, 50])
def test_one_stage_at_second_order_equals_dpm_solver_multistep(steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS, prediction_type="epsilon", algorithm_type="dpmsolver++", solver_order=2,
        final_sigmas_type="zero", lower_order_final=False,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    found = our_sample(DDIMPath(prediction="eps"), ddim_times(scheduler), "second_order")
    assert relative_error(found, reference_sample(scheduler)) < 1e-4


@pytest.mark.parametrize("steps", [10, 50])
def test_one_stage_equals_euler_flow_matching(steps):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    times = np.linspace(1.0, 0.0, steps + 1)
    scheduler.set_timesteps(sigmas=times[:-1].tolist())
    assert relative_error(our_sample(FlowPath(), times), reference_sample(scheduler)) < 1e-5
    by_hand = X_START
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        by_hand = by_hand + (t_next - t) * answer(by_hand, 1000.0 * t, np)
    assert relative_error(our_sample(FlowPath(), times), by_hand) < 1e-5
