"""Levels of the causal video autoencoder: residual blocks, then half or twice of space and time."""

import functools

from einops import rearrange
from flax import nnx

from tpdiff_jax.models.causal_video_vae.config import CausalVideoVAEConfig
from tpdiff_jax.models.layers.basic import DTYPES, FrameGroupNorm
from tpdiff_jax.models.layers.causal_video import (
    CausalConv,
    ConvCache,
    causal_residuals,
)
from tpdiff_jax.types import Array


class DownLevel(nnx.Module):
    """Residual blocks, then half the height and width and half the time."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        is_last: bool,
        config: CausalVideoVAEConfig,
        rngs: nnx.Rngs,
    ):
        self.residuals = _residuals(channels, out_channels, config.encoder_depth, config, rngs)
        ends = (out_channels, out_channels, config, rngs)
        self.downsample_space = None if is_last else causal_conv(*ends, strides=(1, 2, 2))
        self.downsample_time = None if is_last else causal_conv(*ends, strides=(2, 1, 1))

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """[b, 1 + 2 m, h, w, c] -> [b, 1 + m, h / 2, w / 2, d]; later chunks have no 1."""
        for residual in self.residuals.values():
            x = residual(x, cache)
        if self.downsample_space is None or self.downsample_time is None:
            return x
        return self.downsample_time(self.downsample_space(x, cache), cache)


class UpLevel(nnx.Module):
    """Residual blocks, then twice the height and width and twice the time, depth to space."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        is_last: bool,
        config: CausalVideoVAEConfig,
        rngs: nnx.Rngs,
    ):
        d = out_channels
        self.residuals = _residuals(channels, d, config.decoder_depth, config, rngs)
        self.upsample_space = None if is_last else causal_conv(d, 4 * d, config, rngs)
        self.upsample_time = None if is_last else causal_conv(d, 2 * d, config, rngs)

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """[b, 1 + m, h, w, c] -> [b, 1 + 2 m, 2 h, 2 w, d]; later chunks have no 1."""
        for residual in self.residuals.values():
            x = residual(x, cache)
        if self.upsample_space is None or self.upsample_time is None:
            return x
        x = self.upsample_space(x, cache)
        x = rearrange(x, "b f h w (c p q) -> b f (h p) (w q) c", p=2, q=2)
        x = rearrange(self.upsample_time(x, cache), "b f h w (c p) -> b (f p) h w c", p=2)
        return x[:, 1:] if cache.is_first_chunk else x  # the first latent is one frame


def group_norm(config: CausalVideoVAEConfig, channels: int) -> FrameGroupNorm:
    """Return the norm of so many channels, of one frame at a time."""
    return FrameGroupNorm(channels, config.num_groups)


def causal_conv(
    channels: int,
    out_channels: int,
    config: CausalVideoVAEConfig,
    rngs: nnx.Rngs,
    strides: tuple[int, int, int] = (1, 1, 1),
) -> CausalConv:
    """Return a 3 x 3 x 3 convolution.

    Args:
        channels: c of what goes in.
        out_channels: d of what comes out.
        config: of the autoencoder.
        rngs: random streams.
        strides: over time, rows and columns.
    """
    return CausalConv(channels, out_channels, DTYPES[config.dtype], rngs, strides=strides)


def _residuals(
    channels: int, out_channels: int, depth: int, config: CausalVideoVAEConfig, rngs: nnx.Rngs
) -> nnx.Dict:
    norm = functools.partial(group_norm, config)
    return causal_residuals(channels, out_channels, depth, norm, DTYPES[config.dtype], rngs)
