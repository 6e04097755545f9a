"""Sampling: noise to video through all stages and jumps, as one program.

In each stage an ODE solver runs from t = s_i to t = e_i on the line of that stage; then the jump
starts the next one. Both paths take the same form of step. With m the solver's memory,

    x' = p A + q B + c (m - m_before)

    flow:  A = x,    B = m = dx/dt,       p = 1,            q = t' - t          (Euler)
    DDIM:  A = m = a_i,  B = eps_i,       p = gamma_{t'},   q = sigma_{t'}      (DDIM)

DDIM's step is Euler in the coordinates (x/gamma, nu) that its lines are straight in, written
without a division by gamma, which may be 0. c = 0 is first order; second order has

    flow:  c = h^2 / (2 h_before),  h = t' - t                                  (Adams-Bashforth)
    DDIM:  c = (gamma_{t'} - sigma_{t'}/nu_t) h / (2 h_before),  h = log(nu_t/nu_{t'})
                                                                                (DPM-Solver++ 2M)

On non-uniform grids, too. p, q, c are numbers of the grid alone: float64, on the host. c is 0 on
a stage's first step, so that history never crosses a jump, and where nu is 0 or infinite. On a
grid uniform in t, DDIM's second order lowers the error several times but not its order: towards
the data nu falls like the square root of t, and the steps in log(nu) do not shrink.
"""

import dataclasses
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.method.choices import check_choice
from tpdiff_jax.method.guidance import guided
from tpdiff_jax.method.network_outputs import output_to_data_and_noise, output_to_velocity
from tpdiff_jax.method.paths import DDIMPath, FlowPath
from tpdiff_jax.method.stage_transition import stage_transition
from tpdiff_jax.method.stages import Pyramid
from tpdiff_jax.types import Array, Cond, Predict, PRNGKey

SOLVERS = ("euler", "second_order")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerSpec:
    """How to sample.

    Args:
        steps_per_stage: solver steps of each stage, coarsest first.
        solver: "euler" (DDIM on the DDIM path) or "second_order" (two-step multistep).
        renoise: False is the ablation that jumps without fresh noise.
        guidance_scale: of each stage, or one number for all.
        time_grids: noise times of each stage, falling, one more than its steps; () for uniform
            grids from s_i to e_i. A grid ends at e_i; it starts at s_i, save stage 0's, which
            may start later, as reference samplers' timestep lists do.

    Raises:
        ValueError: an unknown solver, or lengths or numbers out of range.
    """

    steps_per_stage: tuple[int, ...]
    solver: str = "second_order"
    renoise: bool = True
    guidance_scale: tuple[float, ...] = (1.0,)
    time_grids: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        steps, scales, grids = self.steps_per_stage, self.guidance_scale, self.time_grids
        check_choice("sample.solver", self.solver, SOLVERS)
        if not steps or min(steps) < 1:
            raise ValueError(
                f"sample.steps_per_stage is {steps}; allowed: 1 or more for each stage"
            )
        if len(scales) not in (1, len(steps)) or not all(map(math.isfinite, scales)):
            raise ValueError(
                f"sample.guidance_scale is {scales}; allowed: one finite number, or one for each "
                f"of the {len(steps)} stages"
            )
        if grids and tuple(len(grid) - 1 for grid in grids) != tuple(steps):
            raise ValueError(
                f"sample.time_grids has lengths {tuple(map(len, grids))}; allowed: one grid for "
                f"each stage, one longer than sample.steps_per_stage {steps}"
            )
        if not all(np.all(np.diff(grid) < 0.0) for grid in grids):
            raise ValueError(f"sample.time_grids is {grids}; allowed: strictly falling times")


def split_steps(num_steps: int, num_stages: int) -> tuple[int, ...]:
    """Share solver steps equally; what is left over goes to the coarsest, cheapest stages.

    Args:
        num_steps: steps in all, at least one per stage.
        num_stages: K.

    Returns:
        Steps of each stage, coarsest first.

    Raises:
        ValueError: fewer steps than stages.
    """
    if num_steps < num_stages:
        raise ValueError(
            f"sample.num_steps is {num_steps}; allowed: at least one for each of the "
            f"{num_stages} stages"
        )
    share, left = divmod(num_steps, num_stages)
    return tuple(share + (index < left) for index in range(num_stages))


def sample(
    predict: Predict,
    pyramid: Pyramid,
    spec: SamplerSpec,
    sample_keys: PRNGKey,
    latent_shape: tuple[int, int, int],
    cond: Cond = None,
    null_cond: Cond = None,
) -> Array:
    """Sample videos; each one's noise is a function of its own key, whatever the batch.

    Args:
        predict: the network.
        pyramid: the stages it was trained on.
        spec: how to sample.
        sample_keys: one typed key per video, [b].
        latent_shape: (h, w, c).
        cond: pytree with leading axis b, or None.
        null_cond: its unconditional twin; needed for guidance only.

    Returns:
        x_0: full-rate videos, float32, [b, F, h, w, c].

    Raises:
        ValueError: as `sample_from_noise`.
    """
    shapes = [(stage.num_frames, *latent_shape) for stage in pyramid.stages]
    noises = tuple(
        jax.vmap(lambda key, i=i, shape=shape: jax.random.normal(
            jax.random.fold_in(key, i), shape, jnp.float32))(sample_keys)
        for i, shape in enumerate(shapes)
    )  # fmt: skip
    return sample_from_noise(predict, pyramid, spec, noises, cond, null_cond)


def sample_from_noise(
    predict: Predict,
    pyramid: Pyramid,
    spec: SamplerSpec,
    noises: Sequence[Array],
    cond: Cond = None,
    null_cond: Cond = None,
) -> Array:
    """Sample videos from given noises; a deterministic map, to be compiled as one program.

    Args:
        predict: the network.
        pyramid: the stages it was trained on.
        spec: how to sample.
        noises: noises[0] is the start, noises[i] the fresh noise z of the jump into stage i; of
            shape [b, f_i, h, w, c].
        cond: pytree with leading axis b, or None.
        null_cond: its unconditional twin; needed for guidance only.

    Returns:
        x_0: full-rate videos, [b, F, h, w, c].

    Raises:
        ValueError: the spec does not fit the pyramid, or guidance lacks a null condition.

    Source: arXiv 2503.09566, Algorithm 2 and Section 3.3; arXiv 2211.01095 for DPM-Solver++.
    """
    grids = _time_grids(pyramid, spec)
    scales = spec.guidance_scale * (pyramid.num_stages if len(spec.guidance_scale) == 1 else 1)
    b, _, *latent_shape = noises[0].shape
    for stage, noise in zip(pyramid.stages, noises, strict=True):
        chex.assert_shape(noise, (b, stage.num_frames, *latent_shape))
    x = noises[0]
    for i, (grid, scale) in enumerate(zip(grids, scales, strict=True)):
        if i > 0:
            x = stage_transition(pyramid, i, x, noises[i], renoise=spec.renoise)
        coefficients = _solver_coefficients(pyramid, grid, spec.solver)
        x = _run_stage(guided(predict, scale, null_cond), pyramid, i, grid, coefficients, x, cond)
    return x


def _time_grids(pyramid: Pyramid, spec: SamplerSpec) -> list[np.ndarray]:
    """Noise times of each stage, s_i to e_i, in float64."""
    if len(spec.steps_per_stage) != pyramid.num_stages:
        raise ValueError(
            f"sample.steps_per_stage is {spec.steps_per_stage}; allowed: one number for each of "
            f"the {pyramid.num_stages} stages of pyramid.frame_strides"
        )
    if not spec.time_grids:
        pairs = zip(pyramid.stages, spec.steps_per_stage, strict=True)
        return [np.linspace(stage.t_start, stage.t_end, steps + 1) for stage, steps in pairs]
    for stage, grid in zip(pyramid.stages, spec.time_grids, strict=True):
        is_late = stage.index == 0 and stage.t_end < grid[0] <= stage.t_start
        is_start = is_late or math.isclose(grid[0], stage.t_start, abs_tol=1e-6)
        if not (is_start and math.isclose(grid[-1], stage.t_end, abs_tol=1e-6)):
            raise ValueError(
                f"sample.time_grids of stage {stage.index} runs from {grid[0]} to {grid[-1]}; "
                f"allowed: {stage.t_start} to {stage.t_end}"
            )
    return [np.asarray(grid, np.float64) for grid in spec.time_grids]


def _solver_coefficients(pyramid: Pyramid, grid: np.ndarray, solver: str) -> np.ndarray:
    """p, q, c of each step (see the top of the file), float64, [steps, 3]."""
    scales = [pyramid.path.host_scales(t) for t in grid]
    # The solvers' own step lengths: in t for flow, in -log(nu) for DDIM.
    if isinstance(pyramid.path, FlowPath):
        clock = grid
        p, q = np.ones(len(grid) - 1), np.diff(grid)
        per_slope = q
    else:
        clock = np.array([-_log(scale.nu) for scale in scales])
        p = np.array([scale.gamma for scale in scales[1:]])
        q = np.array([scale.sigma for scale in scales[1:]])
        per_slope = p - q / np.array([scale.nu for scale in scales[:-1]])
    c = np.zeros_like(p)
    if solver == "second_order":
        for n in range(1, len(c)):
            before, now, after = clock[n - 1 : n + 2]
            if np.all(np.isfinite([before, now, after])) and now != before:
                c[n] = per_slope[n] * (after - now) / (2.0 * (now - before))
    return np.stack([p, q, c], axis=1)


def _log(nu: float) -> float:
    return math.log(nu) if nu > 0.0 else -math.inf


def _run_stage(
    predict: Predict,
    pyramid: Pyramid,
    stage_index: int,
    grid: np.ndarray,
    coefficients: np.ndarray,
    x_start: Array,
    cond: Cond,
) -> Array:
    """Solve one stage's ODE along `grid`, from x_start; returns x_end, [b, f, h, w, c]."""
    stage = pyramid.stages[stage_index]
    positions = jnp.asarray(stage.frame_positions)

    def step(state: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], None]:
        x, memory_before = state
        t, p, q, c = row
        time = jnp.full(x.shape[0], pyramid.network_time(stage_index, t), jnp.float32)
        output = predict(x, time, positions, stage.frame_stride, cond).astype(x.dtype)
        if isinstance(pyramid.path, DDIMPath):
            data, noise = output_to_data_and_noise(pyramid, x, t, output)
            first_order, memory = p * data + q * noise, data
        else:
            velocity = output_to_velocity(pyramid, stage_index, x, t, output)
            first_order, memory = p * x + q * velocity, velocity
        return (first_order + c * (memory - memory_before), memory), None

    rows = jnp.asarray(np.concatenate([grid[:-1, None], coefficients], axis=1), x_start.dtype)
    (x_end, _), _ = jax.lax.scan(step, (x_start, jnp.zeros_like(x_start)), rows)
    return x_end
