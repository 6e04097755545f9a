"""The causal video autoencoder of Pyramid-Flow: 8 x 8 x 8 pixels to one latent, in chunks if long.

    1 + 8 m frames  ->  1 + m latents:  latent 0 is frame 0, latent i is frames 8 i - 7 .. 8 i

Nothing looks ahead: latent i is a function of frames up to 8 i, and latent 0 of frame 0 alone, so a
picture and the first frame of a video have the same code. Latents of video have their own mean and
spread, latent 0 those of pictures; `normalise` maps both to unit scale.

A long video runs in chunks of time, with the same result as at once. A large frame can run in
tiles, with another result: group norms and the middle's attention then see a tile, not the frame.

Source: Jin et al., Pyramid-Flow, arXiv 2410.05954, section 3 and its released autoencoder.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.causal_video_vae.config import CausalVideoVAEConfig
from tpdiff_jax.models.causal_video_vae.layers import (
    DownLevel,
    UpLevel,
    group_norm,
)
from tpdiff_jax.models.layers.basic import DTYPES
from tpdiff_jax.models.layers.block_stack import bind, new_params
from tpdiff_jax.models.layers.causal_video import (
    CausalDecoder,
    CausalEncoder,
    check_causal_video,
    in_chunks_of_time,
)
from tpdiff_jax.models.layers.latent_moments import mean_and_log_var
from tpdiff_jax.models.layers.tiling import Tiles, in_tiles
from tpdiff_jax.types import Array, Params, PRNGKey


def causal_video_encoder(config: CausalVideoVAEConfig, rngs: nnx.Rngs) -> CausalEncoder:
    """Return the encoder: levels from the pixels to the latents."""
    return CausalEncoder(*_parts(DownLevel, config.level_channels, config, rngs))


def causal_video_decoder(config: CausalVideoVAEConfig, rngs: nnx.Rngs) -> CausalDecoder:
    """Return the decoder: levels from the latents to the pixels."""
    return CausalDecoder(*_parts(UpLevel, config.level_channels[::-1], config, rngs))


@dataclass(frozen=True)
class CausalVideoVAE:
    """The autoencoder as pure functions of a parameter tree {"encoder", "decoder"}."""

    config: CausalVideoVAEConfig

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32."""
        key_encoder, key_decoder = jax.random.split(key)
        return {
            "encoder": new_params(causal_video_encoder, self.config, key_encoder),
            "decoder": new_params(causal_video_decoder, self.config, key_decoder),
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
        factor = self.config.factor
        check_causal_video(video.shape, factor, factor, chunk_frames, tiles)
        encoder = bind(causal_video_encoder, self.config, params["encoder"])

        def encode(tile: Array) -> Array:
            return in_chunks_of_time(encoder, tile, chunk_frames, "chunk_frames")

        moments = encode(video) if tiles is None else in_tiles(encode, video, tiles)
        return mean_and_log_var(moments)

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
        decoder = bind(causal_video_decoder, self.config, params["decoder"])

        def decode(tile: Array) -> Array:
            return in_chunks_of_time(decoder, tile, chunk_latents, "chunk_latents")

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


def _parts(
    level: type[DownLevel] | type[UpLevel],
    widths: tuple[int, ...],
    config: CausalVideoVAEConfig,
    rngs: nnx.Rngs,
) -> tuple[Any, ...]:
    """Return what encoder and decoder are made of, as their arguments."""
    ends, last = list(zip((widths[0], *widths), widths, strict=False)), len(widths) - 1
    levels = {str(i): level(*ends[i], i == last, config, rngs) for i in range(last + 1)}
    norm, dtype = functools.partial(group_norm, config), DTYPES[config.dtype]
    latents = config.latent_channels
    return config.channels, nnx.Dict(levels), widths, latents, norm, dtype, rngs
