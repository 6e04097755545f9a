"""Parts of the causal video autoencoder: causal convolutions, residual blocks, levels.

A causal convolution sees frames up to its own: kernel - 1 frames of zeros stand before the first
one. To run a long video in chunks, each convolution keeps the last frames of its input; `ConvCache`
hands them from chunk to chunk, so that chunks give what the whole video would. Group norms and
attention look at one frame at a time.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from tpdiff_jax.models.causal_video_vae.config import CausalVideoVAEConfig
from tpdiff_jax.models.layers.attention import SelfAttention
from tpdiff_jax.models.layers.basic import DTYPES, FrameGroupNorm
from tpdiff_jax.types import Array

KERNEL = 3


class ConvCache:
    """The last frames that each convolution has seen, in the order in which they run.

    Lives for one traced call: `frames` come in, `next_frames` go out to the next chunk's cache.
    """

    def __init__(self, frames: Sequence[Array] | None = None):
        self.is_first_chunk = frames is None
        self.next_frames: list[Array] = []
        self._frames = iter(frames or ())

    def extend(self, x: Array, kernel: int, stride: int) -> Array:
        """Put what came before in front of a chunk, and keep what the next chunk needs.

        Args:
            x: a chunk, [b, f, h, w, c].
            kernel: of the convolution that follows, along time.
            stride: of it, along time.

        Returns:
            [b, f + what came before, h, w, c]; zeros come before the start of the video.
        """
        if self.is_first_chunk:
            before = jnp.zeros((x.shape[0], kernel - 1, *x.shape[2:]), x.dtype)
        else:
            before = next(self._frames)
        joined = jnp.concatenate([before, x], axis=1)
        self.next_frames.append(joined[:, joined.shape[1] - (kernel - stride) :])
        return joined


class CausalConv(nnx.Module):
    """3 x 3 x 3 convolution that sees no later frame: [b, f, h, w, c] -> [b, f', h', w', d]."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        config: CausalVideoVAEConfig,
        rngs: nnx.Rngs,
        strides: tuple[int, int, int] = (1, 1, 1),
    ):
        self.conv = nnx.Conv(
            channels,
            out_channels,
            (KERNEL,) * 3,
            strides,
            padding=((0, 0), (1, 1), (1, 1)),
            dtype=DTYPES[config.dtype],
            rngs=rngs,
        )
        self.time_stride = strides[0]

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """Convolve a chunk, given what came before it."""
        return self.conv(cache.extend(x, KERNEL, self.time_stride))


class CausalResidualBlock(nnx.Module):
    """shortcut(x) + conv(silu(norm(conv(silu(norm(x)))))); the shortcut is linear, or x itself."""

    def __init__(
        self, channels: int, out_channels: int, config: CausalVideoVAEConfig, rngs: nnx.Rngs
    ):
        self.norm_1 = FrameGroupNorm(channels, config.num_groups)
        self.conv_1 = CausalConv(channels, out_channels, config, rngs)
        self.norm_2 = FrameGroupNorm(out_channels, config.num_groups)
        self.conv_2 = CausalConv(out_channels, out_channels, config, rngs)
        self.shortcut = (
            nnx.Linear(channels, out_channels, dtype=DTYPES[config.dtype], rngs=rngs)
            if channels != out_channels
            else None
        )

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """[b, f, h, w, c] -> [b, f, h, w, d]."""
        y = self.conv_1(jax.nn.silu(self.norm_1(x)), cache)
        y = self.conv_2(jax.nn.silu(self.norm_2(y)), cache)
        return y + (x if self.shortcut is None else self.shortcut(x))


class CausalMiddle(nnx.Module):
    """Residual block, attention within each frame, residual block."""

    def __init__(self, channels: int, config: CausalVideoVAEConfig, rngs: nnx.Rngs):
        self.residual_1 = CausalResidualBlock(channels, channels, config, rngs)
        self.norm = FrameGroupNorm(channels, config.num_groups)
        self.attention = SelfAttention(channels, 1, False, DTYPES[config.dtype], rngs)
        self.residual_2 = CausalResidualBlock(channels, channels, config, rngs)

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """[b, f, h, w, c] -> [b, f, h, w, c]."""
        x = self.residual_1(x, cache)
        tokens = rearrange(self.norm(x), "b f h w c -> b f (h w) c")
        x = x + self.attention(tokens, None).reshape(x.shape)
        return self.residual_2(x, cache)


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
        self.downsample_space = None if is_last else CausalConv(*ends, strides=(1, 2, 2))
        self.downsample_time = None if is_last else CausalConv(*ends, strides=(2, 1, 1))

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
        self.upsample_space = None if is_last else CausalConv(d, 4 * d, config, rngs)
        self.upsample_time = None if is_last else CausalConv(d, 2 * d, config, rngs)

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


def _residuals(
    channels: int, out_channels: int, depth: int, config: CausalVideoVAEConfig, rngs: nnx.Rngs
) -> nnx.Dict:
    widths = [channels] + [out_channels] * depth
    blocks = {
        str(i): CausalResidualBlock(widths[i], widths[i + 1], config, rngs) for i in range(depth)
    }
    return nnx.Dict(blocks)
