"""Training points of a stage: a straight line from its noisy start to its cleaner end.

Write x_i = D_{r_i}(x_0) for the stage's own frames and c_i = U(D_{r_{i-1}}(x_0)) for what the
stage before knew of them. With one noise eps of the stage's shape, the line joins

    xs_i = gamma_s c_i + sigma_s eps        (start, t = s_i; Eq. 7)
    xe_i = gamma_e x_i + sigma_e eps        (end, t = e_i; Eq. 8)

Flow draws it in x (Eq. 12, 13), with u = (t - e)/(s - e):

    x_t = (1 - u) xe_i + u xs_i
    dx/dt = (xs_i - xe_i)/(s - e) = eps - (gamma_e x_i - gamma_s c_i)/(s - e)

DDIM draws it in (x/gamma, nu) (Eq. 10, 11). Substituting the end points gives

    eps_i = eps - (x_i - c_i)/(nu_s - nu_e)               the noise, minus the detail to add
    a_i   = (nu_s x_i - nu_e c_i)/(nu_s - nu_e)           the stage's data: a_i, never x_0
    x_t   = gamma_t a_i + sigma_t eps_i,    v_i = gamma_t eps_i - sigma_t a_i

Differs from the paper: stage 0 starts from pure noise and nothing is known before it, so
c_0 = x_0 at its own stride, where Eq. 7 would blur it; its line is then the plain
x_t = gamma_t x + sigma_t eps, and is computed so (nu_s may be infinite). With one stage this is
ordinary flow matching and ordinary DDIM training, exactly.

What a straight line says of the data: a_i for DDIM; for flow the point where the line would meet
t = 0, the same all along it and x_0 for one stage:

    m_i = x_t - t dx/dt = (s gamma_e x_i - e gamma_s c_i)/(s - e)

Source: arXiv 2503.09566, Section 3.2.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.method.paths import FlowPath, broadcast_time
from tpdiff_jax.method.stages import Pyramid
from tpdiff_jax.types import Array, PRNGKey


class TrainingPoint(NamedTuple):
    """What the network sees and what it should answer, both [b, f, h, w, c]."""

    x_t: Array
    target: Array


def sample_times(pyramid: Pyramid, stage_index: int, key: PRNGKey, batch_size: int) -> Array:
    """Noise times of a batch, uniform in [e_i, s_i), stratified: one in each b-th of the window.

    Which sample gets which b-th is random too, so that a data order that repeats cannot tie a
    sample to a noise level.

    Args:
        pyramid: the pyramid.
        stage_index: i.
        key: used for this only.
        batch_size: b.

    Returns:
        float32, [b].
    """
    stage = pyramid.stages[stage_index]
    key_order, key_offset = jax.random.split(key)
    stratum = jax.random.permutation(key_order, batch_size)
    u = (stratum + jax.random.uniform(key_offset, (batch_size,))) / batch_size
    t = stage.t_end + (stage.t_start - stage.t_end) * u
    # Rounding must not reach s_i itself.
    last = np.nextafter(np.float32(stage.t_start), np.float32(0.0))
    return jnp.minimum(t, last).astype(jnp.float32)


def stage_videos(pyramid: Pyramid, stage_index: int, x_0: Array) -> tuple[Array, Array]:
    """The stage's frames x_i = D(x_0), and c_i, what the stage before knew of them.

    Args:
        pyramid: the pyramid.
        stage_index: i.
        x_0: full-rate video, [b, F, h, w, c].

    Returns:
        x_i and c_i, both [b, f, h, w, c]; the same video for stage 0.

    Source: arXiv 2503.09566, Eq. 7 and 8.
    """
    chex.assert_shape(x_0, (None, pyramid.num_frames, None, None, None))
    stage = pyramid.stages[stage_index]
    x_i = stage.downsample(x_0)
    if stage.jump is None:
        return x_i, x_i
    return x_i, stage.jump.upsample(pyramid.stages[stage_index - 1].downsample(x_0))


def stage_end_points(
    pyramid: Pyramid, stage_index: int, x_0: Array, eps: Array
) -> tuple[Array, Array]:
    """The ends of a stage's training path: gamma_s c_i + sigma_s eps, gamma_e x_i + sigma_e eps.

    Args:
        pyramid: the pyramid.
        stage_index: i.
        x_0: full-rate video, [b, F, h, w, c].
        eps: noise of the stage's shape, [b, f, h, w, c].

    Returns:
        x_start (at t = s_i) and x_end (at t = e_i), both [b, f, h, w, c].

    Source: arXiv 2503.09566, Eq. 7 and 8.
    """
    stage = pyramid.stages[stage_index]
    x_i, c_i = stage_videos(pyramid, stage_index, x_0)
    chex.assert_equal_shape([x_i, eps])
    x_start = stage.gamma_start * c_i + stage.sigma_start * eps
    x_end = stage.gamma_end * x_i + stage.sigma_end * eps
    return x_start, x_end


def training_point(
    pyramid: Pyramid, stage_index: int, x_0: Array, eps: Array, t: Array
) -> TrainingPoint:
    """The point at noise time t of the line between a stage's end points, and its target.

    The target is dx/dt for flow ("stage" unit: dx/du = (s - e) dx/dt, the paper's), and v_i or
    eps_i for DDIM, as the path's `prediction` says; for "data" it is the line's data, m_i for
    flow and a_i for DDIM.

    Args:
        pyramid: the pyramid.
        stage_index: i.
        x_0: full-rate video, [b, F, h, w, c].
        eps: noise of the stage's shape, [b, f, h, w, c].
        t: noise time in [e_i, s_i], [b].

    Returns:
        x_t and target, both [b, f, h, w, c].

    Source: arXiv 2503.09566, Eq. 10 to 13. Differs from the paper: the default unit of velocity
    is dx/dt, the same in every stage and equal to eps - x_0 for one stage.
    """
    x_i, c_i = stage_videos(pyramid, stage_index, x_0)
    chex.assert_equal_shape([x_i, eps])
    chex.assert_shape(t, (x_0.shape[0],))
    t = broadcast_time(t, x_i.ndim)
    if isinstance(pyramid.path, FlowPath):
        return _flow_point(pyramid, stage_index, x_i, c_i, eps, t)
    return _ddim_point(pyramid, stage_index, x_i, c_i, eps, t)


def _flow_point(
    pyramid: Pyramid, stage_index: int, x_i: Array, c_i: Array, eps: Array, t: Array
) -> TrainingPoint:
    stage = pyramid.stages[stage_index]
    length = stage.t_start - stage.t_end
    if stage.jump is None:
        x_t = pyramid.path.gamma(t) * x_i + pyramid.path.sigma(t) * eps
        velocity, data = eps - x_i, x_i
    else:
        u = (t - stage.t_end) / length
        # sigma is linear in t, so the noise terms of the two ends add up to t eps.
        x_t = (1.0 - u) * stage.gamma_end * x_i + u * stage.gamma_start * c_i + t * eps
        detail = (stage.gamma_end * x_i - stage.gamma_start * c_i) / length
        velocity, data = eps - detail, stage.gamma_end * x_i + stage.t_end * detail
    if pyramid.path.prediction == "data":
        return TrainingPoint(x_t, data)
    return TrainingPoint(x_t, velocity * length if pyramid.target_unit == "stage" else velocity)


def _ddim_point(
    pyramid: Pyramid, stage_index: int, x_i: Array, c_i: Array, eps: Array, t: Array
) -> TrainingPoint:
    stage = pyramid.stages[stage_index]
    a_i, eps_i = x_i, eps
    if stage.jump is not None:
        detail = (x_i - c_i) / (stage.nu_start - stage.nu_end)
        a_i, eps_i = x_i + stage.nu_end * detail, eps - detail
    gamma_t, sigma_t = pyramid.path.gamma(t), pyramid.path.sigma(t)
    x_t = gamma_t * a_i + sigma_t * eps_i
    if pyramid.path.prediction == "eps":
        return TrainingPoint(x_t, eps_i)
    if pyramid.path.prediction == "data":
        return TrainingPoint(x_t, a_i)
    return TrainingPoint(x_t, gamma_t * eps_i - sigma_t * a_i)
