"""Random streams for the constructors of network parts, quick to trace.

A stream of nnx counts its keys in an array. Each assignment asks a traced value for its sharding,
and jax before 0.11 answers with an error that names all operations which the value came from: time
that grows with the square of the network, a half of what building it takes. Here Python counts.
"""

import jax
import numpy as np
from flax import nnx

from tpdiff_jax.types import PRNGKey


class RandomStream(nnx.RngStream):
    """A stream with the keys of `nnx.RngStream`."""

    def __init__(self, key: PRNGKey):
        super().__init__(key, tag="default")
        self.num_drawn = 0

    def __call__(self) -> PRNGKey:
        """Return the next key."""
        key = jax.random.fold_in(self.key.get_value(), np.uint32(self.num_drawn))
        self.num_drawn += 1
        return key


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
