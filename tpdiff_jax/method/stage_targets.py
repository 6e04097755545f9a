"""What a stage is trained on: noise times, its videos, and points of its line with their targets.

The mathematics is `stage_line`'s; here it meets a training batch.

Differs from the paper: stage 0 starts from pure noise and nothing is known before it, so
c_0 = x_0 at its own strides, where Eq. 7 would blur it.

With the pyramid's line "marginal" the same holds in every stage: c_i = x_i, hence a_i = x_i and
eps_i = eps, which is ordinary diffusion at the stage's own frame rate, within its window. A network
trained so by itself, without a pyramid, has been asked the same questions. The jump then hands on
U D x_0 where the stage was trained on x_i: the law sampled is the data's only as far as the detail
x_i - U D x_0 is small against the noise at the jump.

Source: arXiv 2503.09566, Section 3.2.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.checks import whole_number
from tpdiff_jax.method.pyramid import Pyramid
from tpdiff_jax.method.scales import at_least_float32
from tpdiff_jax.method.stage_line import line_to_target, point_on_line, stage_line
from tpdiff_jax.types import Array, PRNGKey


class TrainingPoint(NamedTuple):
    """What the network sees and what it should answer, both [b, f, h, w, c]."""

    x_t: Array
    target: Array


def sample_times(pyramid: Pyramid, stage_index: int, key: PRNGKey, batch_size: int) -> Array:
    """Noise times of a batch in [e_i, s_i), stratified: one in each b-th of their law.

    Uniform in the window, or logit-normal (`Pyramid.time_sampling`), in t or, where the pyramid
    has a time shift, in the even time u (`Pyramid.times_at`).

    Which sample gets which b-th is random too, so that a data order that repeats cannot tie a
    sample to a noise level.

    Args:
        pyramid: the pyramid.
        stage_index: i.
        key: used for this only.
        batch_size: b.

    Returns:
        float32, [b].

    Raises:
        ValueError: there is no such stage, or no sample.

    Source: arXiv 2503.09566, Algorithm 1, with t stratified; arXiv 2403.03206, Eq. 19.
    """
    stage = pyramid.stage(stage_index)
    whole_number("batch_size", batch_size)
    key_order, key_offset = jax.random.split(key)
    stratum = jax.random.permutation(key_order, batch_size)
    offset = jax.random.uniform(key_offset, (batch_size,), jnp.float32)
    share = pyramid.time_sampling.shares((stratum + offset) / batch_size)
    t = jnp.asarray(pyramid.times_at(stage_index, share))
    # Rounding must not leave the window, nor reach s_i itself.
    first, last = np.float32(stage.t_end), np.nextafter(np.float32(stage.t_start), np.float32(0.0))
    if float(first) < stage.t_end:  # a float32 would compare in float32
        first = np.nextafter(first, np.float32(1.0))
    return jnp.clip(t.astype(jnp.float32), first, last)


def coarse_perturbation(
    pyramid: Pyramid, stage_index: int, sample_keys: PRNGKey, num_channels: int
) -> Array | None:
    """Noise on the video that training lets a stage know: tau n, white at the stage before.

        c_i = U (D_{r_{i-1}}(x_0) + tau n)

    In sampling a stage meets coarse videos that the network made, not true ones; cascaded models
    perturb what they condition on for that reason. Sampling adds no such noise, so that the law
    sampled is no longer exactly the data's. White noise that sampling adds too is the overlap of
    `make_pyramid`, and exact.

    Args:
        pyramid: the pyramid; its `coarse_noise` is tau.
        stage_index: i.
        sample_keys: one typed key per video, [b]; those of `aligned_noise` will do, which draws
            from them in another way.
        num_channels: c.

    Returns:
        tau n, float32, [b, *shape of i-1, c]; None where there is none: tau is 0, or i is.

    Raises:
        ValueError: there is no such stage.

    Source: Differs from the paper: arXiv 2106.15282 (conditioning augmentation) for cascades.
    """
    stage = pyramid.stage(stage_index)
    if pyramid.coarse_noise == 0.0 or stage.jump is None:
        return None
    # `aligned_noise` folds in the index of a stage: the number of stages is none.
    keys = jax.vmap(jax.random.fold_in, (0, None))(sample_keys, pyramid.num_stages)
    shape = (*pyramid.stages[stage_index - 1].shape, num_channels)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
    return pyramid.coarse_noise * noise


def stage_videos(
    pyramid: Pyramid, stage_index: int, x_0: Array, perturbation: Array | None = None
) -> tuple[Array, Array]:
    """The stage's video x_i = D(x_0), and c_i, what the stage before knew of it.

    Args:
        pyramid: the pyramid.
        stage_index: i.
        x_0: full videos, floating-point, [b, F, H, W, c].
        perturbation: what is added to the coarse video, [b, *shape of i-1, c]; None for nothing.

    Returns:
        x_i and c_i, in at least float32, both [b, f, h, w, c]; the same video for stage 0, and for
        every stage of a pyramid of the line "marginal".

    Raises:
        ValueError: there is no such stage, or x_0 is not floating-point.

    Source: arXiv 2503.09566, Eq. 7 and 8. Differs from the paper: "marginal", as arXiv 2605.18736
    trains a pyramid over space.
    """
    stage = pyramid.stage(stage_index)
    pyramid.check_videos(x_0)
    x_i = at_least_float32(stage.downsample(x_0))
    if stage.jump is None or pyramid.line == "marginal":
        return x_i, x_i
    known = at_least_float32(pyramid.stages[stage_index - 1].downsample(x_0))
    if perturbation is not None:
        chex.assert_equal_shape([known, perturbation])
        known = known + perturbation
    return x_i, stage.jump.known(known)


def stage_end_points(
    pyramid: Pyramid, stage_index: int, x_0: Array, eps: Array
) -> tuple[Array, Array]:
    """The ends of a stage's training path: gamma_s c_i + sigma_s eps, gamma_e x_i + sigma_e eps.

    Args:
        pyramid: the pyramid.
        stage_index: i.
        x_0: full videos, floating-point, [b, F, H, W, c].
        eps: noise of the stage's shape, [b, f, h, w, c].

    Returns:
        x_start (at t = s_i) and x_end (at t = e_i), both [b, f, h, w, c].

    Raises:
        ValueError: there is no such stage, or x_0 is not floating-point.

    Source: arXiv 2503.09566, Eq. 7 and 8.
    """
    stage = pyramid.stage(stage_index)
    x_i, c_i = stage_videos(pyramid, stage_index, x_0)
    chex.assert_equal_shape([x_i, eps])
    eps = at_least_float32(eps)
    x_start = stage.gamma_start * c_i + stage.sigma_start * eps
    x_end = stage.gamma_end * x_i + stage.sigma_end * eps
    return x_start, x_end


def training_point(
    pyramid: Pyramid,
    stage_index: int,
    x_0: Array,
    eps: Array,
    t: Array,
    perturbation: Array | None = None,
) -> TrainingPoint:
    """The point at noise time t of the line between a stage's end points, and its target.

    The target is the velocity, v_i, eps_i or a_i, as the path's `prediction` says (`stage_line`).

    Args:
        pyramid: the pyramid.
        stage_index: i.
        x_0: full videos, floating-point, [b, F, H, W, c].
        eps: noise of the stage's shape, [b, f, h, w, c].
        t: noise time in [e_i, s_i], [b].
        perturbation: of what the stage before knew (see `coarse_perturbation`), or None.

    Returns:
        x_t and target, in at least float32, both [b, f, h, w, c].

    Raises:
        ValueError: there is no such stage, or x_0 is not floating-point.

    Source: arXiv 2503.09566, Eq. 10 to 13. Differs from the paper: the default unit of velocity
    is dx/dt, the same in every stage and equal to eps - x_0 for one stage.
    """
    x_i, c_i = stage_videos(pyramid, stage_index, x_0, perturbation)
    chex.assert_equal_shape([x_i, eps])
    chex.assert_shape(t, (x_0.shape[0],))
    line = stage_line(pyramid, stage_index, x_i, c_i, at_least_float32(eps))
    return TrainingPoint(
        x_t=point_on_line(pyramid, line, t),
        target=line_to_target(pyramid, stage_index, line, t),
    )
