"""The training loss, one number per sample, so that its mean may be taken over any mesh.

An error of the data is an error 1/sigma_t times larger of the velocity and of v: weighting the
squared error by its square makes it the loss of velocity (of v) prediction. Small networks over
large patches of pixels learn data far sooner: it lies near a surface of few dimensions, noise
fills all of them (arXiv 2511.13720).
"""

import chex
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.method.pyramid import Pyramid
from tpdiff_jax.method.scales import at_least_float32
from tpdiff_jax.types import Array, ArrayLike

MIN_SIGMA = 0.2
"""Smallest noise scale in the weight of data prediction: below it the weight stays constant.

The paper of data prediction takes 0.05; then nearly all of the loss comes from the smallest t,
where the sample has all but its last digits.
"""


def mean_squared_error(prediction: Array, target: Array) -> Array:
    """Mean squared error of each sample: mean over all axes but the first of (p - y)^2.

    Args:
        prediction: network output, [b, ...], any float type.
        target: what it should be, the same shape.

    Returns:
        float32, [b].

    Raises:
        AssertionError: the shapes differ (broadcasting here would hide a mistake).

    Source: arXiv 2503.09566, Algorithm 1, last line.
    """
    chex.assert_equal_shape([prediction, target])
    error = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(error**2, axis=tuple(range(1, error.ndim)))


def loss_weight(pyramid: Pyramid, stage_index: int, t: ArrayLike) -> Array:
    """Weight of a sample's squared error: 1, or for data prediction 1/max(sigma_t, 0.2)^2.

    The mean of that over a stage's window rises from stage to stage: 1.5, 4.1 and 18.3 for flow,
    strides 4, 2, 1 and copies, so that the last stage's gradients are 12 times the first's. With
    `stage_weighting` "equal" it is divided by that mean: within a stage the weights keep their
    proportions, and every stage's are 1 in the mean.

    Args:
        pyramid: the pyramid.
        stage_index: i.
        t: noise time, [b] or a scalar.

    Returns:
        Weights, of the shape of t.

    Raises:
        ValueError: there is no such stage.

    Source: arXiv 2511.13720 for data prediction under the velocity's loss. Differs from the
    paper: "equal".
    """
    pyramid.stage(stage_index)
    t = at_least_float32(t)
    if pyramid.path.prediction != "data":
        return jnp.ones_like(t)
    weight = jnp.maximum(pyramid.path.sigma(t), MIN_SIGMA) ** -2.0
    if pyramid.stage_weighting == "equal":
        weight = weight / mean_loss_weight(pyramid, stage_index)
    return weight


def mean_loss_weight(pyramid: Pyramid, stage_index: int) -> float:
    """Mean over the times drawn of a stage of the weight 1/max(sigma_t, 0.2)^2 of data prediction.

    Args:
        pyramid: the pyramid.
        stage_index: i.

    Returns:
        The mean, on the host, to five digits.

    Raises:
        ValueError: there is no such stage.
    """
    shares = pyramid.time_sampling.middle_shares(10_000)
    times = np.asarray(pyramid.times_at(stage_index, shares))
    sigmas = np.array([pyramid.path.host_scales(t).sigma for t in times])
    return float(np.mean(np.maximum(sigmas, MIN_SIGMA) ** -2.0))
