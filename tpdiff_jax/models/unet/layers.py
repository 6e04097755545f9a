"""Modules of a latent-diffusion U-Net: stem, residual blocks, downsampling, upsampling, head.

All of them are Stable Diffusion's and see one frame at a time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.layers.basic import DTYPES, FrameGroupNorm, Linear
from tpdiff_jax.models.layers.embeddings import sinusoid_features
from tpdiff_jax.models.layers.residual_block import ResidualBlock, frame_conv, twice
from tpdiff_jax.models.unet.config import LayerShape, UNetConfig
from tpdiff_jax.types import Array, ArrayLike, Layout

NORM_EPSILON = 1e-5


class Context(NamedTuple):
    """What every layer sees beside its input.

    Attributes:
        time: activated embedding of the noise time, [b, e].
        text: embedded prompts, [b, m, e'].
        frame_positions: positions in the full-rate video, [f].
    """

    time: Array
    text: Array
    frame_positions: ArrayLike


def residual_block(
    channels: int, out_channels: int, config: UNetConfig, rngs: nnx.Rngs
) -> ResidualBlock:
    """Return a residual block that adds the noise time.

    Args:
        channels: of its input.
        out_channels: of its output.
        config: groups of its norms, size of the noise time, type.
        rngs: of fresh parameters.

    Returns:
        The block, which takes [b, f, h, w, channels].
    """
    return ResidualBlock(
        channels,
        out_channels,
        DTYPES[config.dtype],
        rngs,
        num_groups=config.num_groups,
        epsilon=NORM_EPSILON,
        time_dim=config.time_dim,
    )


class UNetStem(nnx.Module):
    """Latents to the first level's channels; noise time to one vector."""

    def __init__(self, config: UNetConfig, rngs: nnx.Rngs):
        width, dim = config.level_channels[0], config.time_dim
        self.conv = frame_conv(config.channels, width, DTYPES[config.dtype], rngs)
        self.time = nnx.Dict(inner=Linear(width, dim, rngs=rngs), outer=Linear(dim, dim, rngs=rngs))
        self.num_features = width

    def embed_time(self, t: Array) -> Array:
        """Network time [b] -> activated embedding [b, e], float32."""
        hidden = jax.nn.silu(self.time["inner"](sinusoid_features(t, self.num_features)))
        return jax.nn.silu(self.time["outer"](hidden))


class MiddleEnd(nnx.Module):
    """The residual block that ends the middle."""

    def __init__(self, shape: LayerShape, rngs: nnx.Rngs):
        dim = shape.out_channels
        self.residual = residual_block(dim, dim, shape.config, rngs)

    def __call__(self, x: Array, context: Context, layout: Layout) -> Array:
        """[b, f, h, w, d] -> [b, f, h, w, d]."""
        del layout
        return self.residual(x, context.time)


class Downsample(nnx.Module):
    """Half the height and width."""

    def __init__(self, shape: LayerShape, rngs: nnx.Rngs):
        dim, dtype = shape.out_channels, DTYPES[shape.config.dtype]
        self.conv = frame_conv(dim, dim, dtype, rngs, stride=2)

    def __call__(self, x: Array, context: Context, layout: Layout) -> Array:
        """[b, f, h, w, d] -> [b, f, h / 2, w / 2, d]."""
        del context, layout
        return self.conv(x)


class Upsample(nnx.Module):
    """Twice the height and width."""

    def __init__(self, shape: LayerShape, rngs: nnx.Rngs):
        dim, dtype = shape.out_channels, DTYPES[shape.config.dtype]
        self.conv = frame_conv(dim, dim, dtype, rngs)

    def __call__(self, x: Array, context: Context, layout: Layout) -> Array:
        """[b, f, h, w, d] -> [b, f, 2 h, 2 w, d]."""
        del context, layout
        return self.conv(twice(x))


class UNetHead(nnx.Module):
    """Norm and a zero-initialised convolution back to latents."""

    def __init__(self, config: UNetConfig, rngs: nnx.Rngs):
        width, dtype = config.level_channels[0], DTYPES[config.dtype]
        self.norm = FrameGroupNorm(width, config.num_groups, NORM_EPSILON)
        self.conv = frame_conv(width, config.channels, dtype, rngs, is_zero=True)

    def __call__(self, x: Array) -> Array:
        """[b, f, h, w, d] -> [b, f, h, w, c], float32."""
        return self.conv(jax.nn.silu(self.norm(x))).astype(jnp.float32)
