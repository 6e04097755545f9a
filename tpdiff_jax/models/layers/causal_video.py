"""Parts of causal video autoencoders: convolutions that look back, cut into chunks of time.

A causal convolution sees frames up to its own. To run a long video in chunks, each convolution
keeps the last frames of its input; `ConvCache` hands them from chunk to chunk, so that chunks give
what the whole video would. Everything else looks at one frame at a time.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from tpdiff_jax.models.layers.attention import SelfAttention
from tpdiff_jax.models.layers.tiling import Tiles
from tpdiff_jax.types import Array

FrameNorm = Callable[[Array], Array]
NewNorm = Callable[[int], FrameNorm]
"""Number of channels -> a norm of [b, f, h, w, c] that sees one frame at a time."""


class ConvCache:
    """The last frames that each convolution has seen, in the order in which they run.

    Lives for one traced call: `frames` come in, `next_frames` go out to the next chunk's cache.
    """

    def __init__(self, frames: Sequence[Array] | None = None):
        self.is_first_chunk = frames is None
        self.next_frames: list[Array] = []
        self._frames = iter(frames or ())

    def extend(self, x: Array, num_zeros: int, num_kept: int) -> Array:
        """Put what came before in front of a chunk, and keep what the next chunk needs.

        Args:
            x: a chunk, [b, f, h, w, c].
            num_zeros: frames of zeros before the start of the video.
            num_kept: frames that the next chunk needs.

        Returns:
            [b, f + what came before, h, w, c].
        """
        if self.is_first_chunk:
            before = jnp.zeros((x.shape[0], num_zeros, *x.shape[2:]), x.dtype)
        else:
            before = next(self._frames)
        joined = jnp.concatenate([before, x], axis=1)
        self.next_frames.append(joined[:, joined.shape[1] - num_kept :])
        return joined


class CausalConv(nnx.Module):
    """Convolution that sees no later frame: [b, f, h, w, c] -> [b, f', h', w', d].

    `num_zeros` frames of zeros stand before the first one; without a number, `kernel` - 1. With
    none, what comes out first has seen the first `kernel` frames.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        *,
        kernel: tuple[int, int, int] = (3, 3, 3),
        strides: tuple[int, int, int] = (1, 1, 1),
        num_zeros: int | None = None,
        use_bias: bool = True,
    ):
        rows, columns = ((side // 2, side // 2) for side in kernel[1:])
        self.conv = nnx.Conv(
            channels,
            out_channels,
            kernel,
            strides,
            padding=((0, 0), rows, columns),
            use_bias=use_bias,
            dtype=dtype,
            rngs=rngs,
        )
        self.num_zeros = kernel[0] - 1 if num_zeros is None else num_zeros
        self.num_kept = kernel[0] - strides[0]

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """Convolve a chunk, given what came before it."""
        return self.conv(cache.extend(x, self.num_zeros, self.num_kept))


class CausalResidualBlock(nnx.Module):
    """shortcut(x) + conv(silu(norm(conv(silu(norm(x)))))); the shortcut is linear, or x itself."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        norm: NewNorm,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        use_bias: bool = True,
    ):
        self.norm_1 = norm(channels)
        self.conv_1 = CausalConv(channels, out_channels, dtype, rngs, use_bias=use_bias)
        self.norm_2 = norm(out_channels)
        self.conv_2 = CausalConv(out_channels, out_channels, dtype, rngs, use_bias=use_bias)
        self.shortcut = (
            nnx.Linear(channels, out_channels, use_bias=use_bias, dtype=dtype, rngs=rngs)
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

    def __init__(self, channels: int, norm: NewNorm, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.residual_1 = CausalResidualBlock(channels, channels, norm, dtype, rngs)
        self.norm = norm(channels)
        self.attention = SelfAttention(channels, 1, False, dtype, rngs)
        self.residual_2 = CausalResidualBlock(channels, channels, norm, dtype, rngs)

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """[b, f, h, w, c] -> [b, f, h, w, c]."""
        x = self.residual_1(x, cache)
        tokens = rearrange(self.norm(x), "b f h w c -> b f (h w) c")
        x = x + self.attention(tokens, None).reshape(x.shape)
        return self.residual_2(x, cache)


def causal_residuals(
    channels: int,
    out_channels: int,
    depth: int,
    norm: NewNorm,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    use_bias: bool = True,
) -> nnx.Dict:
    """Return residual blocks in a row, by number.

    Args:
        channels: what goes into the first one.
        out_channels: what comes out of each.
        depth: number of blocks.
        norm: makes their norms.
        dtype: compute type.
        rngs: random streams.
        use_bias: of their convolutions.
    """
    widths = [channels] + [out_channels] * depth
    blocks = {
        str(i): CausalResidualBlock(widths[i], widths[i + 1], norm, dtype, rngs, use_bias)
        for i in range(depth)
    }
    return nnx.Dict(blocks)


class CausalEncoder(nnx.Module):
    """Pixels to the moments of a latent, mean and log-variance side by side."""

    def __init__(
        self,
        channels: int,
        levels: nnx.Dict,
        widths: Sequence[int],
        latent_channels: int,
        norm: NewNorm,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Put the parts together.

        Args:
            channels: of a pixel.
            levels: modules (x, cache) -> x by number, from the pixels on.
            widths: channels of each level.
            latent_channels: channels of a latent.
            norm: makes the norms.
            dtype: compute type.
            rngs: random streams.
        """
        z = 2 * latent_channels
        self.conv_in = CausalConv(channels, widths[0], dtype, rngs)
        self.levels = levels
        self.middle = CausalMiddle(widths[-1], norm, dtype, rngs)
        self.norm = norm(widths[-1])
        self.conv_out = CausalConv(widths[-1], z, dtype, rngs)
        self.moments = nnx.Linear(z, z, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """[b, f, h, w, c] -> [b, f', h', w', 2 z], float32."""
        x = self.conv_in(x, cache)
        for level in self.levels.values():
            x = level(x, cache)
        x = jax.nn.silu(self.norm(self.middle(x, cache)))
        return self.moments(self.conv_out(x, cache)).astype(jnp.float32)


class CausalDecoder(nnx.Module):
    """Latents to pixels; the arguments are the encoder's, the levels from the latents on."""

    def __init__(
        self,
        channels: int,
        levels: nnx.Dict,
        widths: Sequence[int],
        latent_channels: int,
        norm: NewNorm,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        z = latent_channels
        self.latents = nnx.Linear(z, z, dtype=dtype, rngs=rngs)
        self.conv_in = CausalConv(z, widths[0], dtype, rngs)
        self.middle = CausalMiddle(widths[0], norm, dtype, rngs)
        self.levels = levels
        self.norm = norm(widths[-1])
        self.conv_out = CausalConv(widths[-1], channels, dtype, rngs)

    def __call__(self, z: Array, cache: ConvCache) -> Array:
        """[b, f', h', w', z] -> [b, f, h, w, c], float32."""
        x = self.middle(self.conv_in(self.latents(z), cache), cache)
        for level in self.levels.values():
            x = level(x, cache)
        return self.conv_out(jax.nn.silu(self.norm(x)), cache).astype(jnp.float32)


def check_causal_video(
    shape: Sequence[int], unit: int, factor: int, chunk_frames: int | None, tiles: Tiles | None
) -> None:
    """Refuse a video, or parts of it, that make no whole latents.

    Args:
        shape: of the video, [b, f, h, w, c].
        unit: frames of every latent but the first.
        factor: pixels of a latent's side.
        chunk_frames: frames to hold at once beside the first; None: all of them.
        tiles: in pixels; None: whole frames.

    Raises:
        ValueError: naming what does not come out even.
    """
    if (shape[1] - 1) % unit or shape[2] % factor or shape[3] % factor:
        raise ValueError(
            f"video must be [b, 1 + {unit} m, h, w, c] with sides that are multiples of {factor}, "
            f"got {tuple(shape)}"
        )
    if chunk_frames is not None and chunk_frames % unit:
        raise ValueError(f"chunk_frames must be a multiple of {unit}, got {chunk_frames}")
    if tiles is not None and (tiles.side % factor or tiles.overlap % factor):
        raise ValueError(f"tiles must be multiples of {factor}, got {tiles}")


def in_chunks_of_time(
    apply: Callable[[Array, ConvCache], Array], x: Array, chunk: int | None, name: str
) -> Array:
    """Run a causal network over a video: the first 1 + chunk frames, then chunk by chunk.

    Args:
        apply: the network, from a chunk and a cache to its output.
        x: [b, 1 + n, h, w, c].
        chunk: a divisor of n; None: the whole video at once.
        name: what to call `chunk` in errors.

    Returns:
        What `apply` gives for the whole video, [b, 1 + n', h', w', d].

    Raises:
        ValueError: when the chunks do not come out even.
    """
    num_later = x.shape[1] - 1
    if chunk is None or num_later <= chunk:
        return apply(x, ConvCache())
    if chunk < 1 or num_later % chunk:
        raise ValueError(f"{name} must be positive and divide {num_later}, got {chunk}")
    cache = ConvCache()
    first = apply(x[:, : 1 + chunk], cache)

    def step(frames: list[Array], part: Array) -> tuple[list[Array], Array]:
        cache = ConvCache(frames)
        result = apply(part, cache)
        return cache.next_frames, result

    rest = x[:, 1 + chunk :]
    parts = rest.reshape(rest.shape[0], -1, chunk, *rest.shape[2:]).swapaxes(0, 1)
    _, later = jax.lax.scan(step, cache.next_frames, parts)
    later = later.swapaxes(0, 1)  # [b, chunks, frames of a chunk, ...]
    return jnp.concatenate([first, later.reshape(later.shape[0], -1, *later.shape[3:])], axis=1)
