"""Modulation by learned tables: one network for the noise time, a table for every block.

A network turns the noise time into a few vectors that all blocks share; each block adds a table of
its own to them. Modulation and residual sums are computed in float32 whatever the compute type.

Source: Chen et al., PixArt-alpha, arXiv 2310.00426, section 2.3 (adaLN-single).
"""

from typing import Protocol

import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.layers.basic import DTYPES, modulated_norm, over_tokens, zero_linear
from tpdiff_jax.types import Array

NUM_MODULATIONS = 6
"""Shift, scale and gate of a block's attention, then of its feed-forward layer."""


class TableHeadConfig(Protocol):
    """What the head needs to know of a network's config."""

    @property
    def hidden_size(self) -> int:
        """Width of the tokens."""
        ...

    @property
    def output_dim(self) -> int:
        """Values that are predicted for a patch."""
        ...

    @property
    def dtype(self) -> str:
        """Compute type, a key of `DTYPES`."""
        ...


class ModulationTable(nnx.Module):
    """A learned table added to what the noise time says: [b, k or 1, d] -> k arrays [b, d]."""

    def __init__(self, num_rows: int, dim: int, rngs: nnx.Rngs):
        init = nnx.initializers.normal(dim**-0.5)
        self.table = nnx.Param(init(rngs.params(), (num_rows, dim), jnp.float32))

    def __call__(self, of_time: Array) -> list[Array]:
        """Float32 sums, row by row."""
        rows = self.table[...] + of_time
        return [rows[:, i] for i in range(rows.shape[1])]


class TableHead(nnx.Module):
    """Norm, modulated by a table, and a zero-initialised projection back to patches."""

    def __init__(self, config: TableHeadConfig, rngs: nnx.Rngs):
        d = config.hidden_size
        self.modulation = ModulationTable(2, d, rngs)
        self.patch = zero_linear(d, config.output_dim, DTYPES[config.dtype], rngs)

    def __call__(self, x: Array, embedded: Array) -> Array:
        """[b, f, l, d], embedded time [b, d] -> [b, f, l, p] float32."""
        shift, scale = self.modulation(embedded[:, None])
        return self.patch(modulated(x, shift, scale)).astype(jnp.float32)


def modulated(x: Array, shift: Array, scale: Array) -> Array:
    """Return norm(x) (1 + scale) + shift, computed in float32.

    Args:
        x: tokens, [b, ..., d].
        shift: [b, d].
        scale: [b, d].

    Returns:
        Tokens, same shape and dtype as x.
    """
    return modulated_norm(x.astype(jnp.float32), shift, scale).astype(x.dtype)


def add_gated(x: Array, gate: Array, y: Array) -> Array:
    """Return x + gate y, computed in float32 and rounded once.

    Args:
        x: tokens, [b, ..., d].
        gate: [b, d].
        y: what is added, of x's shape.

    Returns:
        Tokens, same shape and dtype as x.
    """
    x_f32 = x.astype(jnp.float32)
    return (x_f32 + over_tokens(gate, x_f32) * y.astype(jnp.float32)).astype(x.dtype)
