"""The training loss, one number per sample, so that its mean may be taken over any mesh."""

import chex
import jax.numpy as jnp

from tpdiff_jax.types import Array


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
