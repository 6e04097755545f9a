"""The end of a transformer: tokens back to patches."""

from typing import Protocol

import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.layers.basic import DTYPES, modulated_norm, zero_linear
from tpdiff_jax.types import Array


class HeadConfig(Protocol):
    """What the head needs to know of a network's config."""

    @property
    def hidden_size(self) -> int:
        """Width of the tokens."""
        ...

    @property
    def patch_dim(self) -> int:
        """Values in a patch."""
        ...

    @property
    def dtype(self) -> str:
        """Compute type, a key of `DTYPES`."""
        ...


class Head(nnx.Module):
    """Modulated norm and a zero-initialised projection back to patches."""

    def __init__(self, config: HeadConfig, rngs: nnx.Rngs):
        d = config.hidden_size
        self.modulation = zero_linear(d, 2 * d, jnp.float32, rngs)
        self.patch = zero_linear(d, config.patch_dim, DTYPES[config.dtype], rngs)

    def __call__(self, x: Array, condition: Array) -> Array:
        """[b, ..., l, d], [b, d] -> [b, ..., l, p] float32."""
        shift, scale = jnp.split(self.modulation(condition), 2, axis=-1)
        return self.patch(modulated_norm(x, shift, scale)).astype(jnp.float32)
