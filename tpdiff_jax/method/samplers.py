"""Sampling: noise to video through all stages and jumps, as one program.

In each stage an ODE solver runs from t = s_i to t = e_i on the lines that the network sees,

    x' = gamma_t' a_i + sigma_t' eps_i + c (m - m_before)

(see `solver_coefficients`); then the jump starts the next stage. State, times and coefficients
are float32, or float64 where the noise is.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.checks import whole_number
from tpdiff_jax.method.guidance import check_condition, guided
from tpdiff_jax.method.pyramid import Pyramid
from tpdiff_jax.method.sampler_spec import SamplerSpec
from tpdiff_jax.method.scales import at_least_float32
from tpdiff_jax.method.solver_coefficients import solver_coefficients, solver_memory
from tpdiff_jax.method.stage_line import output_to_line
from tpdiff_jax.method.stage_transition import stage_transition
from tpdiff_jax.method.time_grids import time_grids
from tpdiff_jax.types import Array, Cond, Positions, Predict, PRNGKey


def sample(
    predict: Predict,
    pyramid: Pyramid,
    spec: SamplerSpec,
    sample_keys: PRNGKey,
    num_channels: int,
    cond: Cond = None,
    null_cond: Cond = None,
) -> Array:
    """Sample videos; each one's noise is a function of its own key, whatever the batch.

    Args:
        predict: the network.
        pyramid: the stages it was trained on.
        spec: how to sample.
        sample_keys: one typed key per video, [b].
        num_channels: c.
        cond: pytree with leading axis b, or None.
        null_cond: its unconditional twin; needed for guidance only.

    Returns:
        x_0: full videos, float32, [b, F, H, W, c].

    Raises:
        ValueError: as `sample_from_noise`, or no number of channels.

    Source: arXiv 2503.09566, Algorithm 2.
    """
    channels = whole_number("num_channels", num_channels)
    noises = tuple(
        jax.vmap(lambda key, i=stage.index, shape=(*stage.shape, channels): jax.random.normal(
            jax.random.fold_in(key, i), shape, jnp.float32))(sample_keys)
        for stage in pyramid.stages
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
        noises: noises[0] is the start, noises[i] the fresh noise z of the jump into stage i; each
            [b, f, h, w, c] with its stage's shape.
        cond: pytree with leading axis b, or None.
        null_cond: its unconditional twin; needed for guidance only.

    Returns:
        x_0: full videos, float32 (float64 where the noise is), [b, F, H, W, c].

    Raises:
        ValueError: the spec does not fit the pyramid, guidance lacks a null condition, a
            condition is not for b videos, or noises are missing.

    Source: arXiv 2503.09566, Algorithm 2 and Section 3.3.
    """
    grids = time_grids(pyramid, spec)
    if len(noises) != pyramid.num_stages:
        raise ValueError(
            f"noises has {len(noises)} entries; allowed: {pyramid.num_stages}, one for each stage"
        )
    b, *_, channels = noises[0].shape
    for stage, noise in zip(pyramid.stages, noises, strict=True):
        chex.assert_shape(noise, (b, *stage.shape, channels))
    check_condition("cond", cond, b)
    check_condition("null_cond", null_cond, b)
    x = at_least_float32(noises[0])
    for i, (grid, scale) in enumerate(zip(grids, spec.stage_scales, strict=True)):
        if i > 0:
            z = at_least_float32(noises[i])
            x = stage_transition(pyramid, i, x, z, renoise=spec.renoise)
        rows = solver_coefficients(pyramid.path, grid, spec.solver)
        x = _run_stage(guided(predict, scale, null_cond), pyramid, i, rows, x, cond)
    return x


def _run_stage(
    predict: Predict,
    pyramid: Pyramid,
    stage_index: int,
    coefficients: np.ndarray,
    x_start: Array,
    cond: Cond,
) -> Array:
    """Solve one stage's ODE from x_start; returns x_end, [b, f, h, w, c]."""
    stage = pyramid.stages[stage_index]
    positions = Positions(*map(jnp.asarray, stage.positions))

    def step(state: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], None]:
        x, memory_before = state
        t, gamma_next, sigma_next, c = row
        time = jnp.full(x.shape[0], pyramid.network_time(stage_index, t), jnp.float32)
        output = predict(x, time, positions, stage.strides, cond).astype(x.dtype)
        line = output_to_line(pyramid, stage_index, x, t, output)
        memory = solver_memory(pyramid.path, line)
        x_next = gamma_next * line.data + sigma_next * line.noise + c * (memory - memory_before)
        return (x_next, memory), None

    rows = jnp.asarray(coefficients, x_start.dtype)
    (x_end, _), _ = jax.lax.scan(step, (x_start, jnp.zeros_like(x_start)), rows)
    return x_end
