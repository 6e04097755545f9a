"""Random streams for the constructors of network parts, quick to trace.

A stream of nnx counts its keys in an array. Each assignment asks a traced value for its sharding,
and jax before 0.11 answers with an error that names all operations which the value came from: time
that grows with the square of the network, a half of what building it takes. Here Python counts.

And each key that is folded in alone is a hash of its own in the compiled program, a third of what
compiling a U-Net's parameters takes. Here keys are made by the block.
"""

import itertools
from collections.abc import Iterator

import jax
import numpy as np
from flax import nnx

from tpdiff_jax.types import PRNGKey


class RandomStream(nnx.RngStream):
    """A stream with the keys of `nnx.RngStream`."""

    def __init__(self, key: PRNGKey):
        super().__init__(key, tag="default")
        self.next_key = _fold_in_blocks(self.key.get_value()).__next__

    def __call__(self) -> PRNGKey:
        """Return the next key."""
        return self.next_key()


def _fold_in_blocks(key: PRNGKey, size: int = 32) -> Iterator[PRNGKey]:
    """Yield `key` with 0 folded in, with 1, and so on."""
    for start in itertools.count(0, size):
        numbers = np.arange(start, start + size, dtype=np.uint32)
        yield from jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def random_streams(key: PRNGKey) -> nnx.Rngs:
    """Return what constructors take as `rngs`: keys for parameters of every kind.

    Args:
        key: that all keys come from.

    Returns:
        One stream, `default`, which gives the keys of `nnx.Rngs(key)` in the same order.
    """
    rngs = nnx.Rngs()
    rngs.default = RandomStream(key)  # type: ignore[attr-defined]
    return rngs
