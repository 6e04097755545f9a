"""Levels of Wan's autoencoder. The first frame passes every change of time as it is.

Time is halved after space by a convolution of three frames that ends at frame 2, 4, 6, ..., and
doubled before space by one of frames 1, 2, 3, ... with zeros before the first of these: frame 0 is
no part of it.
"""

import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from tpdiff_jax.models.layers.basic import DTYPES
from tpdiff_jax.models.layers.causal_video import CausalConv, ConvCache, causal_residuals
from tpdiff_jax.models.layers.residual_block import AFTER, frame_conv, twice
from tpdiff_jax.models.wan_vae.config import WanVAEConfig
from tpdiff_jax.types import Array

OVER_TIME = (3, 1, 1)
RMS_EPSILON = 1e-12


class ChannelNorm(nnx.Module):
    """sqrt(c) x / |x| with a learned scale; the length of x over its c channels, at least 1e-12."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))

    def __call__(self, x: Array) -> Array:
        """[..., c] -> [..., c], same dtype; the length in float32."""
        x_f32 = x.astype(jnp.float32)
        square = jnp.sum(jnp.square(x_f32), axis=-1, keepdims=True)
        length = jnp.sqrt(jnp.maximum(square, RMS_EPSILON**2))
        return (x_f32 / length * x.shape[-1] ** 0.5 * self.scale[...]).astype(x.dtype)


class WanDownLevel(nnx.Module):
    """Residual blocks, then half the height and width, then half the time."""

    def __init__(self, index: int, config: WanVAEConfig, rngs: nnx.Rngs):
        widths, depth, dtype = config.level_channels, config.level_depth, DTYPES[config.dtype]
        channels, d = widths[max(index - 1, 0)], widths[index]
        is_last = index == len(widths) - 1
        self.residuals = causal_residuals(channels, d, depth, ChannelNorm, dtype, rngs)
        self.downsample_space = (
            None if is_last else frame_conv(d, d, dtype, rngs, stride=2, padding=AFTER)
        )
        self.downsample_time = (
            CausalConv(d, d, dtype, rngs, kernel=OVER_TIME, strides=(2, 1, 1), num_zeros=0)
            if not is_last and config.halves_time[index]
            else None
        )

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """[b, 1 + 2 m, h, w, c] -> [b, 1 + m, h / 2, w / 2, d]; later chunks have no 1."""
        for residual in self.residuals.values():
            x = residual(x, cache)
        if self.downsample_space is not None:
            x = self.downsample_space(x)
        if self.downsample_time is None:
            return x
        later = self.downsample_time(x, cache)
        return jnp.concatenate([x[:, :1], later], axis=1) if cache.is_first_chunk else later


class WanUpLevel(nnx.Module):
    """Residual blocks, then twice the time, then twice the height and width at half the channels.

    Levels of the decoder are counted from the latents.
    """

    def __init__(self, index: int, config: WanVAEConfig, rngs: nnx.Rngs):
        widths, depth = config.level_channels[::-1], config.level_depth + 1
        dtype, is_last = DTYPES[config.dtype], index == len(widths) - 1
        channels, d = widths[index - 1] // 2 if index else widths[0], widths[index]
        self.residuals = causal_residuals(channels, d, depth, ChannelNorm, dtype, rngs)
        self.upsample_time = (
            CausalConv(d, 2 * d, dtype, rngs, kernel=OVER_TIME)
            if not is_last and config.halves_time[::-1][index]
            else None
        )
        self.upsample_space = None if is_last else frame_conv(d, d // 2, dtype, rngs)

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """[b, 1 + m, h, w, c] -> [b, 1 + 2 m, 2 h, 2 w, d / 2]; later chunks have no 1."""
        for residual in self.residuals.values():
            x = residual(x, cache)
        if self.upsample_time is not None:
            first, later = (x[:, :1], x[:, 1:]) if cache.is_first_chunk else (x[:, :0], x)
            later = self.upsample_time(later, cache)
            later = rearrange(later, "b f h w (p c) -> b (f p) h w c", p=2)
            x = jnp.concatenate([first, later], axis=1)
        return x if self.upsample_space is None else self.upsample_space(twice(x))
