"""Positions of frames as AnimateDiff's motion modules see them."""

import math

import jax.numpy as jnp
import numpy as np

from tpdiff_jax.types import Array, ArrayLike

POSITION_MAX_PERIOD = 10_000.0


def embed_positions(positions: ArrayLike, dim: int) -> Array:
    """sin(p w_j), cos(p w_j) in turn, w_j = 10000^(-2 j / dim).

    The published modules keep the rows of p = 0, 1, 2, ... as a table; a stage of the pyramid
    takes those of its frames' positions in the full-rate video, which need not be whole numbers.

    Args:
        positions: frame positions p, [f].
        dim: even number of features.

    Returns:
        float32, [f, dim].

    Source: Vaswani et al., arXiv 1706.03762, section 3.5.
    """
    frequencies = np.exp(
        -math.log(POSITION_MAX_PERIOD) * np.arange(0, dim, 2, dtype=np.float64) / dim
    )
    angles = jnp.asarray(positions, jnp.float32)[:, None] * frequencies.astype(np.float32)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(-1, dim)
