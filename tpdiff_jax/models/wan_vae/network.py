"""Wan's causal video autoencoder: 4 x 8 x 8 pixels to one latent, in chunks of time if long.

    1 + 4 m frames  ->  1 + m latents:  latent 0 is frame 0, latent i is frames 4 i - 3 .. 4 i

Nothing looks ahead: latent i is a function of frames up to 4 i, and latent 0 of frame 0 alone.
`normalise` brings each channel to unit scale, latent 0 with the statistics of the others.

A long video runs in chunks of time, with the same result as at once. A large frame can run in
tiles, with another result: convolutions and the middle's attention then see a tile.

Source: Wan Team, arXiv 2503.20314, section 4.1; diffusers' AutoencoderKLWan, with which the tests
compare, its chunks and tiles included.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tpdiff_jax.models.layers.basic import DTYPES
from tpdiff_jax.models.layers.block_stack import bind, new_params
from tpdiff_jax.models.layers.causal_video import (
    CausalDecoder,
    CausalEncoder,
    check_causal_video,
    in_chunks_of_time,
)
from tpdiff_jax.models.layers.latent_moments import mean_and_log_var
from tpdiff_jax.models.layers.tiling import Tiles, in_blended_tiles
from tpdiff_jax.models.wan_vae.config import WanVAEConfig
from tpdiff_jax.models.wan_vae.layers import ChannelNorm, WanDownLevel, WanUpLevel
from tpdiff_jax.types import Array, Params, PRNGKey


def wan_encoder(config: WanVAEConfig, rngs: nnx.Rngs) -> CausalEncoder:
    """Return the encoder: levels from the pixels to the latents."""
    widths = config.level_channels
    levels = nnx.Dict({str(i): WanDownLevel(i, config, rngs) for i in range(len(widths))})
    parts = (config.latent_channels, ChannelNorm, DTYPES[config.dtype], rngs)
    return CausalEncoder(config.channels, levels, widths, *parts)


def wan_decoder(config: WanVAEConfig, rngs: nnx.Rngs) -> CausalDecoder:
    """Return the decoder: levels from the latents to the pixels."""
    widths = config.level_channels[::-1]
    levels = nnx.Dict({str(i): WanUpLevel(i, config, rngs) for i in range(len(widths))})
    parts = (config.latent_channels, ChannelNorm, DTYPES[config.dtype], rngs)
    return CausalDecoder(config.channels, levels, widths, *parts)


@dataclass(frozen=True)
class WanVAE:
    """The autoencoder as pure functions of a parameter tree {"encoder", "decoder"}."""

    config: WanVAEConfig

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32."""
        key_encoder, key_decoder = jax.random.split(key)
        return {
            "encoder": new_params(wan_encoder, self.config, key_encoder),
            "decoder": new_params(wan_decoder, self.config, key_decoder),
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
            video: pixels in [-1, 1], [b, 1 + unit m, h, w, c], unit the config's
                `frames_per_latent`.
            chunk_frames: frames to hold at once beside the first, a multiple of unit that divides
                unit m; None: all of them.
            tiles: in pixels, multiples of the config's `factor`; None: whole frames.

        Returns:
            Mean and log-variance, float32 [b, 1 + m, h / factor, w / factor, z] each, before
            `normalise`.

        Raises:
            ValueError: if lengths or sides do not come out even.
        """
        unit, factor = self.config.frames_per_latent, self.config.factor
        check_causal_video(video.shape, unit, factor, chunk_frames, tiles)
        encoder = bind(wan_encoder, self.config, params["encoder"])

        def encode(tile: Array) -> Array:
            return in_chunks_of_time(encoder, tile, chunk_frames, "chunk_frames")

        moments = encode(video) if tiles is None else in_blended_tiles(encode, video, tiles)
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
            float32 in [-1, 1], [b, 1 + unit m, factor h, factor w, c].

        Raises:
            ValueError: if the chunks do not come out even.
        """
        decoder = bind(wan_decoder, self.config, params["decoder"])

        def decode(tile: Array) -> Array:
            return in_chunks_of_time(decoder, tile, chunk_latents, "chunk_latents")

        pixels = decode(latents) if tiles is None else in_blended_tiles(decode, latents, tiles)
        return jnp.clip(pixels, -1.0, 1.0)

    def normalise(self, latents: Array) -> Array:
        """(z - mean_c) / std_c: [..., z]."""
        mean, std = self._statistics()
        return (latents - mean) / std

    def denormalise(self, latents: Array) -> Array:
        """Undo `normalise`."""
        mean, std = self._statistics()
        return latents * std + mean

    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        mean, std = self.config.latents_mean, self.config.latents_std
        return np.asarray(mean, np.float32), np.asarray(std, np.float32)
