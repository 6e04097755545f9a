"""Levels over time of Open-Sora 1.2's autoencoder; norms see all frames of a chunk at once.

Source: Yu et al., MAGVIT-v2, arXiv 2310.05737, section 3.2 (causal convolutions); Open-Sora 1.2.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from tpdiff_jax.models.layers.basic import DTYPES, FrameGroupNorm
from tpdiff_jax.models.layers.causal_video import CausalConv, ConvCache, causal_residuals
from tpdiff_jax.models.open_sora_vae.config import OpenSoraVAEConfig
from tpdiff_jax.types import Array

GROUP_EPSILON = 1e-5


class TemporalLevel(nnx.Module):
    """Residual blocks, then half (encoder) or twice (decoder) the frames, or as many."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        resampling: str | None,
        config: OpenSoraVAEConfig,
        rngs: nnx.Rngs,
    ):
        self.residuals = _residuals(channels, out_channels, config, rngs)
        d, dtype = out_channels, DTYPES[config.dtype]
        self.downsample = (
            CausalConv(d, d, dtype, rngs, strides=(2, 1, 1), num_zeros=1)
            if resampling == "down"
            else None
        )
        self.upsample = CausalConv(d, 2 * d, dtype, rngs) if resampling == "up" else None

    def __call__(self, x: Array) -> Array:
        """[b, f, h, w, c] -> [b, f', h, w, d]."""
        for residual in self.residuals.values():
            x = residual(x, ConvCache())
        if self.downsample is not None:
            return self.downsample(x, ConvCache())
        if self.upsample is None:
            return x
        return rearrange(self.upsample(x, ConvCache()), "b f h w (c t) -> b (f t) h w c", t=2)


class TemporalEncoder(nnx.Module):
    """Latents of the frames of a chunk to the moments of fewer latents."""

    def __init__(self, config: OpenSoraVAEConfig, rngs: nnx.Rngs):
        widths, dtype, z = config.level_channels, DTYPES[config.dtype], config.image.latent_channels
        resamplings = [*("down" if halves else None for halves in config.halves_frames), None]
        ends = zip((widths[0], *widths), widths, resamplings, strict=False)
        self.conv_in = CausalConv(z, widths[0], dtype, rngs, use_bias=False)
        self.levels = nnx.Dict(
            {str(i): TemporalLevel(*level, config, rngs) for i, level in enumerate(ends)}
        )
        self.residuals = _residuals(widths[-1], widths[-1], config, rngs)
        self.norm = _norm(widths[-1], config)
        self.conv_out = nnx.Linear(widths[-1], 2 * z, dtype=dtype, rngs=rngs)
        self.moments = nnx.Linear(2 * z, 2 * z, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """[b, f, h, w, z] -> [b, f', h, w, 2 z], float32."""
        x = self.conv_in(x, ConvCache())
        for level in self.levels.values():
            x = level(x)
        for residual in self.residuals.values():
            x = residual(x, ConvCache())
        x = jax.nn.silu(self.norm(x))
        return self.moments(self.conv_out(x)).astype(jnp.float32)


class TemporalDecoder(nnx.Module):
    """Latents of a chunk to those of its frames; levels are numbered from the deepest on."""

    def __init__(self, config: OpenSoraVAEConfig, rngs: nnx.Rngs):
        widths = config.level_channels[::-1]
        dtype, z = DTYPES[config.dtype], config.image.latent_channels
        resamplings = [*("up" if halves else None for halves in config.halves_frames[::-1]), None]
        ends = zip((widths[0], *widths), widths, resamplings, strict=False)
        self.latents = nnx.Linear(z, z, dtype=dtype, rngs=rngs)
        self.conv_in = CausalConv(z, widths[0], dtype, rngs)
        self.residuals = _residuals(widths[0], widths[0], config, rngs)
        self.levels = nnx.Dict(
            {str(i): TemporalLevel(*level, config, rngs) for i, level in enumerate(ends)}
        )
        self.norm = _norm(widths[-1], config)
        self.conv_out = CausalConv(widths[-1], z, dtype, rngs)

    def __call__(self, z: Array) -> Array:
        """[b, f', h, w, z] -> [b, f, h, w, z], float32."""
        x = self.conv_in(self.latents(z), ConvCache())
        for residual in self.residuals.values():
            x = residual(x, ConvCache())
        for level in self.levels.values():
            x = level(x)
        return self.conv_out(jax.nn.silu(self.norm(x)), ConvCache()).astype(jnp.float32)


def _norm(channels: int, config: OpenSoraVAEConfig) -> FrameGroupNorm:
    return FrameGroupNorm(channels, config.num_groups, GROUP_EPSILON, is_over_frames=True)


def _residuals(
    channels: int, out_channels: int, config: OpenSoraVAEConfig, rngs: nnx.Rngs
) -> nnx.Dict:
    def norm(width: int) -> FrameGroupNorm:
        return _norm(width, config)

    dtype = DTYPES[config.dtype]
    return causal_residuals(channels, out_channels, config.level_depth, norm, dtype, rngs, False)
