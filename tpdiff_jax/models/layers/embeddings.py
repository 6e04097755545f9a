"""Embeddings of the conditions: noise time, strides, labels. Each gives one vector a sample."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tpdiff_jax.models.layers.basic import Linear
from tpdiff_jax.models.layers.rope import axis_angles, rope_table
from tpdiff_jax.types import Array, ArrayLike, Strides

NUM_TIME_FEATURES = 256
MAX_PERIOD = 10_000.0


def sinusoid_features(x: Array, num_features: int = NUM_TIME_FEATURES) -> Array:
    """[cos(x w_j), sin(x w_j)] with w_j = 10000^(-j / half), j = 0 .. half - 1.

    Args:
        x: scalars, [b]; noise time runs from 0 to 1000.
        num_features: even number of features, 2 half.

    Returns:
        float32, [b, num_features].

    Source: arXiv 1706.03762, section 3.5, in the order of the diffusion networks (cosine first).
    """
    half = num_features // 2
    frequencies = np.exp(-math.log(MAX_PERIOD) * np.arange(half, dtype=np.float64) / half)
    angles = x.astype(jnp.float32)[:, None] * frequencies.astype(np.float32)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def sine_first(positions: ArrayLike, dim: int) -> Array:
    """[sin(p w_j), cos(p w_j)] with w_j = 10000^(-2 j / dim), j = 0 .. dim / 2 - 1.

    Args:
        positions: [l]; numpy where static.
        dim: even number of features.

    Returns:
        float32, [l, dim]; from float64 where static.

    Source: arXiv 1706.03762, section 3.5, all sines first (positions of masked autoencoders).
    """
    cos, sin = rope_table([axis_angles(positions, dim, MAX_PERIOD)])
    return jnp.concatenate([sin, cos], axis=-1)


class ScalarEmbedding(nnx.Module):
    """Sinusoids of a scalar followed by a two-layer SiLU network: [b] -> [b, d]."""

    def __init__(self, dim: int, rngs: nnx.Rngs, num_features: int = NUM_TIME_FEATURES):
        self.inner = Linear(num_features, dim, rngs=rngs)
        self.outer = Linear(dim, dim, rngs=rngs)
        self.num_features = num_features

    def __call__(self, x: Array) -> Array:
        """Embed scalars in the sinusoids' range, 0 to 1000: [b] -> [b, d]."""
        return self.of_features(sinusoid_features(x, self.num_features))

    def of_features(self, features: Array) -> Array:
        """The network behind the sinusoids: [b, num_features] -> [b, d]."""
        return self.outer(jax.nn.silu(self.inner(features)))


class StrideEmbedding(nnx.Module):
    """Embedding of log2(stride): the octaves by which a stage is slower and smaller than full.

    Time has a network of its own; height and width share one, half of the sinusoids each, which is
    asked only of stages that are smaller. Sinusoids that no stage changes would be a bias through
    which every stage's steps move all others' embeddings: with three axes in one network training
    on time-only pyramids was unstable.
    """

    OCTAVE = 100.0
    """Spreads the octaves over the sinusoids' range, which is made for times 0 to 1000."""

    def __init__(self, dim: int, rngs: nnx.Rngs):
        self.time = ScalarEmbedding(dim, rngs)
        self.space = ScalarEmbedding(dim, rngs)

    def __call__(self, strides: Strides) -> Array:
        """Embed static strides over time, height and width: [1, d]."""
        time, height, width = (
            jnp.full((1,), self.OCTAVE * math.log2(stride)) for stride in strides
        )
        embedded = self.time(time)
        if strides[1:] == (1, 1):
            return embedded
        halves = [sinusoid_features(axis, NUM_TIME_FEATURES // 2) for axis in (height, width)]
        return embedded + self.space.of_features(jnp.concatenate(halves, axis=-1))


class LabelEmbedding(nnx.Module):
    """Sum of the embeddings of a sample's labels; one more class means "no label"."""

    def __init__(self, num_classes: int, dim: int, rngs: nnx.Rngs):
        init = nnx.initializers.normal(1.0 / math.sqrt(dim))
        self.table = nnx.Param(init(rngs.params(), (num_classes + 1, dim), jnp.float32))

    def __call__(self, labels: Array) -> Array:
        """[b, k] int -> [b, d]."""
        return self.table[...][labels].sum(axis=1)


def scalar_embedding_flops(dim: int, num_features: int = NUM_TIME_FEATURES) -> float:
    """Matrix-product FLOPs of one `ScalarEmbedding`."""
    return 2.0 * num_features * dim + 2.0 * dim**2
