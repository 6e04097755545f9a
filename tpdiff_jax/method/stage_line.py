"""The line of a stage, from its noisy start to its cleaner end, for every path and prediction.

Write x_i = D_{r_i}(x_0) for the stage's own video and c_i = U(D_{r_{i-1}}(x_0)) for what the
stage before knew of it. With one noise eps of the stage's shape, the line joins

    xs_i = gamma_s c_i + sigma_s eps        (start, t = s_i; Eq. 7)
    xe_i = gamma_e x_i + sigma_e eps        (end, t = e_i; Eq. 8)

straight in x for flow (Eq. 12, 13), straight in (x/gamma, nu) for DDIM (Eq. 10, 11). Both are
the same line, that of one data a_i and one noise eps_i, with d = gamma_e sigma_s - gamma_s sigma_e:

    a_i   = x_i + (gamma_s sigma_e / d) (x_i - c_i)     the stage's data, which is not x_0
    eps_i = eps - (gamma_s gamma_e / d) (x_i - c_i)     the noise, less the detail to add
    x_t   = gamma_t a_i + sigma_t eps_i

d is above 0 as the noise-to-signal ratio rises with t, and no ratio is divided by, so that
gamma_s = 0 (pure noise) is nothing special. In stage 0 c_0 = x_0, hence a_0 = x_0 and eps_0 = eps:
with one stage this is ordinary flow matching and ordinary DDIM training, exactly.

What a network predicts is a number of the line, and with x_t it gives the line back:

    velocity:  u = eps_i - a_i                     a_i = x_t - sigma_t u,  eps_i = x_t + gamma_t u
    v:         v = gamma_t eps_i - sigma_t a_i     a_i = gamma_t x_t - sigma_t v,
                                                   eps_i = sigma_t x_t + gamma_t v
    eps:       eps_i                               a_i = (x_t - sigma_t eps_i) / gamma_t
    data:      a_i                                 eps_i = (x_t - gamma_t a_i) / sigma_t

Source: arXiv 2503.09566, Section 3.2.
"""

from typing import NamedTuple

import chex
import jax.numpy as jnp

from tpdiff_jax.method.paths import Path
from tpdiff_jax.method.pyramid import Pyramid, Stage
from tpdiff_jax.method.scales import at_least_float32, broadcast_time
from tpdiff_jax.types import Array, ArrayLike


class Line(NamedTuple):
    """A stage's line by its data a_i and its noise eps_i, both [b, f, h, w, c]."""

    data: Array
    noise: Array


def stage_line(pyramid: Pyramid, stage_index: int, x_i: Array, c_i: Array, eps: Array) -> Line:
    """The line from gamma_s c_i + sigma_s eps to gamma_e x_i + sigma_e eps.

        a_i   = x_i + (gamma_s sigma_e / d) (x_i - c_i)
        eps_i = eps - (gamma_s gamma_e / d) (x_i - c_i)

    Args:
        pyramid: the pyramid.
        stage_index: i.
        x_i: the stage's video, [b, f, h, w, c].
        c_i: what the stage before knew of it, [b, f, h, w, c].
        eps: noise, [b, f, h, w, c].

    Returns:
        a_i and eps_i.

    Raises:
        ValueError: there is no such stage.

    Source: arXiv 2503.09566, Eq. 10 to 13, in one form for both paths.
    """
    stage = pyramid.stage(stage_index)
    chex.assert_equal_shape([x_i, c_i, eps])
    alpha, beta = detail_weights(stage)
    detail = x_i - c_i
    return Line(data=x_i + alpha * detail, noise=eps - beta * detail)


def detail_weights(stage: Stage) -> tuple[float, float]:
    """How much of the detail x_i - c_i stands in a stage's data, and is taken from its noise.

    Args:
        stage: stage i.

    Returns:
        gamma_s sigma_e / d and gamma_s gamma_e / d.

    Source: arXiv 2503.09566, Eq. 10 to 13, in one form for both paths.
    """
    d = stage.gamma_end * stage.sigma_start - stage.gamma_start * stage.sigma_end
    return stage.gamma_start * stage.sigma_end / d, stage.gamma_start * stage.gamma_end / d


def point_on_line(pyramid: Pyramid, line: Line, t: ArrayLike) -> Array:
    """x_t = gamma_t a_i + sigma_t eps_i.

    Args:
        pyramid: the pyramid.
        line: the line.
        t: noise time, [b] or a scalar.

    Returns:
        The noisy video, [b, f, h, w, c].

    Source: arXiv 2503.09566, Eq. 6.
    """
    gamma_t, sigma_t = _scales(pyramid.path, t, line.data)
    return gamma_t * line.data + sigma_t * line.noise


def line_to_target(pyramid: Pyramid, stage_index: int, line: Line, t: ArrayLike) -> Array:
    """What the network should answer on a line, as the path's `prediction` says.

    Args:
        pyramid: the pyramid; its `target_unit` is that of velocities.
        stage_index: i.
        line: the line.
        t: noise time, [b] or a scalar.

    Returns:
        Velocity (dx/dt or, in unit "stage", dx/du = (s - e) dx/dt), v, eps_i or a_i,
        [b, f, h, w, c].

    Raises:
        ValueError: there is no such stage.

    Source: arXiv 2503.09566, Eq. 11 and 13; arXiv 2202.00512 for v.
    """
    prediction = pyramid.path.prediction
    if prediction == "velocity":
        velocity = line.noise - line.data
        return velocity * _velocity_unit(pyramid, stage_index)
    if prediction == "v":
        gamma_t, sigma_t = _scales(pyramid.path, t, line.data)
        return gamma_t * line.noise - sigma_t * line.data
    return line.noise if prediction == "eps" else line.data


def output_to_line(
    pyramid: Pyramid, stage_index: int, x_t: Array, t: ArrayLike, output: Array
) -> Line:
    """The line through x_t that a network's output means: `line_to_target` undone.

    Args:
        pyramid: the pyramid.
        stage_index: i.
        x_t: noisy video, [b, f, h, w, c].
        t: its noise time, [b] or a scalar; above 0 for data prediction, whose noise is 0/0 there.
        output: the network's prediction, [b, f, h, w, c].

    Returns:
        a_i and eps_i, in at least float32.

    Raises:
        ValueError: there is no such stage.

    Source: arXiv 2503.09566, Eq. 11 and 13; arXiv 2202.00512 for v.
    """
    chex.assert_equal_shape([x_t, output])
    x_t, output = at_least_float32(x_t), at_least_float32(output)
    prediction = pyramid.path.prediction
    gamma_t, sigma_t = _scales(pyramid.path, t, x_t)
    if prediction == "velocity":
        velocity = output / _velocity_unit(pyramid, stage_index)
        return Line(data=x_t - sigma_t * velocity, noise=x_t + gamma_t * velocity)
    if prediction == "v":
        return Line(data=gamma_t * x_t - sigma_t * output, noise=sigma_t * x_t + gamma_t * output)
    if prediction == "eps":
        return Line(data=(x_t - sigma_t * output) / gamma_t, noise=output)
    return Line(data=output, noise=(x_t - gamma_t * output) / sigma_t)


def _scales(path: Path, t: ArrayLike, x: Array) -> tuple[Array, Array]:
    """gamma_t and sigma_t, to multiply x by; never wider than x, nor narrower than float32."""
    t = broadcast_time(at_least_float32(t), x.ndim)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return path.gamma(t).astype(dtype), path.sigma(t).astype(dtype)


def _velocity_unit(pyramid: Pyramid, stage_index: int) -> float:
    """dx/dt in the unit of the targets: 1, or the window's length for the paper's dx/du."""
    stage = pyramid.stage(stage_index)
    return 1.0 if pyramid.target_unit == "time" else stage.t_start - stage.t_end
