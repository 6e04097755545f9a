"""The two moments of an autoencoder's latents, side by side in its last layer."""

import jax.numpy as jnp

from tpdiff_jax.types import Array

LOG_VAR_RANGE = (-30.0, 20.0)


def mean_and_log_var(moments: Array) -> tuple[Array, Array]:
    """Take mean and log-variance apart, the latter kept in `LOG_VAR_RANGE`.

    Args:
        moments: [..., 2 z].

    Returns:
        [..., z] each.

    Source: Rombach et al., arXiv 2112.10752, released code.
    """
    mean, log_var = jnp.split(moments, 2, axis=-1)
    return mean, jnp.clip(log_var, *LOG_VAR_RANGE)
