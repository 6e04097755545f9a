"""The causal video autoencoder of Pyramid-Flow: 8 x 8 x 8 pixels to one latent, in chunks if long.

    1 + 8 m frames  ->  1 + m latents:  latent 0 is frame 0, latent i is frames 8 i - 7 .. 8 i

Nothing looks ahead: latent i is a function of frames up to 8 i, and latent 0 of frame 0 alone, so a
picture and the first frame of a video have the same code. Latents of video have their own mean and
spread, latent 0 those of pictures; `normalise` maps both to unit scale.

A long video runs in chunks of time, with the same result as at once. A large frame can run in
tiles, with another result: group norms and the middle's attention then see a tile, not the frame.

Source: Jin et al., Pyramid-Flow, arXiv 2410.05954, section 3 and its released autoencoder.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.causal_video_vae.config import CausalVideoVAEConfig
from tpdiff_jax.models.causal_video_vae.layers import (
    CausalConv,
    CausalMiddle,
    ConvCache,
    DownLevel,
    UpLevel,
)
from tpdiff_jax.models.layers.basic import DTYPES, FrameGroupNorm
from tpdiff_jax.models.layers.block_stack import bind, new_params
from tpdiff_jax.models.layers.tiling import Tiles, in_tiles
from tpdiff_jax.types import Array, Params, PRNGKey

LOG_VAR_RANGE = (-30.0, 20.0)
Chunk = Callable[[Array, ConvCache], Array]


class CausalVideoEncoder(nnx.Module):
    """Pixels to the moments of a latent, mean and log-variance side by side."""

    def __init__(self, config: CausalVideoVAEConfig, rngs: nnx.Rngs):
        widths, z = config.level_channels, 2 * config.latent_channels
        ends = list(zip((widths[0], *widths), widths, strict=False))
        last = len(widths) - 1
        self.conv_in = CausalConv(config.channels, widths[0], config, rngs)
        self.levels = nnx.Dict(
            {str(i): DownLevel(*ends[i], i == last, config, rngs) for i in range(last + 1)}
        )
        self.middle = CausalMiddle(widths[-1], config, rngs)
        self.norm = FrameGroupNorm(widths[-1], config.num_groups)
        self.conv_out = CausalConv(widths[-1], z, config, rngs)
        self.moments = nnx.Linear(z, z, dtype=DTYPES[config.dtype], rngs=rngs)

    def __call__(self, x: Array, cache: ConvCache) -> Array:
        """[b, f, h, w, c] -> [b, f', h', w', 2 z]."""
        x = self.conv_in(x, cache)
        for level in self.levels.values():
            x = level(x, cache)
        x = jax.nn.silu(self.norm(self.middle(x, cache)))
        return self.moments(self.conv_out(x, cache)).astype(jnp.float32)


class CausalVideoDecoder(nnx.Module):
    """Latents to pixels."""

    def __init__(self, config: CausalVideoVAEConfig, rngs: nnx.Rngs):
        widths, z = config.level_channels[::-1], config.latent_channels
        ends = list(zip((widths[0], *widths), widths, strict=False))
        last = len(widths) - 1
        self.latents = nnx.Linear(z, z, dtype=DTYPES[config.dtype], rngs=rngs)
        self.conv_in = CausalConv(z, widths[0], config, rngs)
        self.middle = CausalMiddle(widths[0], config, rngs)
        self.levels = nnx.Dict(
            {str(i): UpLevel(*ends[i], i == last, config, rngs) for i in range(last + 1)}
        )
        self.norm = FrameGroupNorm(widths[-1], config.num_groups)
        self.conv_out = CausalConv(widths[-1], config.channels, config, rngs)

    def __call__(self, z: Array, cache: ConvCache) -> Array:
        """[b, f', h', w', z] -> [b, f, h, w, c]."""
        x = self.middle(self.conv_in(self.latents(z), cache), cache)
        for level in self.levels.values():
            x = level(x, cache)
        return self.conv_out(jax.nn.silu(self.norm(x)), cache).astype(jnp.float32)


@dataclass(frozen=True)
class CausalVideoVAE:
    """The autoencoder as pure functions of a parameter tree {"encoder", "decoder"}."""

    config: CausalVideoVAEConfig

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32."""
        key_encoder, key_decoder = jax.random.split(key)
        return {
            "encoder": new_params(CausalVideoEncoder, self.config, key_encoder),
            "decoder": new_params(CausalVideoDecoder, self.config, key_decoder),
        }

    def encode(
        self,
        params: Params,
        video: Array,
        chunk_frames: int | None = None,
        tiles: Tiles | None = None,
    ) -> tuple[Array, Array]:
        """Return mean and log-variance of the latents.

        Args:
            params: what `init` returns, or a tree of the same shapes.
            video: pixels in [-1, 1], [b, 1 + factor m, h, w, c].
            chunk_frames: frames to hold at once beside the first, a multiple of the config's
                `factor` that divides factor m; None: all of them.
            tiles: in pixels, multiples of the config's `factor`; None: whole frames.

        Returns:
            Mean and log-variance, float32 [b, 1 + m, h / factor, w / factor, z] each, before
            `normalise`.

        Raises:
            ValueError: if lengths or sides do not come out even.
        """
        factor, shape = self.config.factor, video.shape
        if (shape[1] - 1) % factor or shape[2] % factor or shape[3] % factor:
            raise ValueError(
                f"video must be [b, 1 + {factor} m, h, w, c] with sides that are multiples of "
                f"{factor}, got {shape}"
            )
        if chunk_frames is not None and chunk_frames % factor:
            raise ValueError(f"chunk_frames must be a multiple of {factor}, got {chunk_frames}")
        if tiles is not None and (tiles.side % factor or tiles.overlap % factor):
            raise ValueError(f"tiles must be multiples of {factor}, got {tiles}")
        encoder = bind(CausalVideoEncoder, self.config, params["encoder"])

        def encode(tile: Array) -> Array:
            return _in_chunks(encoder, tile, chunk_frames, "chunk_frames")

        moments = encode(video) if tiles is None else in_tiles(encode, video, tiles)
        mean, log_var = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_var, *LOG_VAR_RANGE)

    def decode(
        self,
        params: Params,
        latents: Array,
        chunk_latents: int | None = None,
        tiles: Tiles | None = None,
    ) -> Array:
        """Return pixels.

        Args:
            params: what `init` returns, or a tree of the same shapes.
            latents: as `encode` gives them, [b, 1 + m, h, w, z].
            chunk_latents: latents to hold at once beside the first, a divisor of m; None: all.
            tiles: in latents; None: whole frames.

        Returns:
            float32, [b, 1 + factor m, factor h, factor w, c], about [-1, 1].

        Raises:
            ValueError: if the chunks do not come out even.
        """
        decoder = bind(CausalVideoDecoder, self.config, params["decoder"])

        def decode(tile: Array) -> Array:
            return _in_chunks(decoder, tile, chunk_latents, "chunk_latents")

        return decode(latents) if tiles is None else in_tiles(decode, latents, tiles)

    def normalise(self, latents: Array) -> Array:
        """(z - shift) / scale, latent 0 with the statistics of pictures: [b, 1 + m, h, w, z]."""
        shift, scale = self._statistics(latents)
        return (latents - shift) / scale

    def denormalise(self, latents: Array) -> Array:
        """Undo `normalise`."""
        shift, scale = self._statistics(latents)
        return latents * scale + shift

    def _statistics(self, latents: Array) -> tuple[Array, Array]:
        config = self.config
        is_first = (jnp.arange(latents.shape[1]) == 0)[:, None, None, None]
        shift = jnp.where(is_first, config.first_shift, config.later_shift)
        return shift, jnp.where(is_first, config.first_scale, config.later_scale)


def _in_chunks(apply: Chunk, x: Array, chunk: int | None, name: str) -> Array:
    """Run a causal network over [b, 1 + n, ...]: the first 1 + chunk, then chunk by chunk."""
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
