"""Open-Sora 1.2's video autoencoder: an image autoencoder, then one over time of its latents.

    17 frames, with 3 of zeros before them, to 5 latents of an eighth of each side

A long video is coded chunk by chunk: chunks do not see each other, and within one the norms see all
of its frames. A large frame can run in tiles of the image autoencoder, with another result.

Source: Zheng et al., Open-Sora, arXiv 2412.20404, section on the video autoencoder; its code.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from einops import rearrange

from tpdiff_jax.models.image_vae.network import ImageVAE
from tpdiff_jax.models.layers.block_stack import bind, new_params
from tpdiff_jax.models.layers.latent_moments import mean_and_log_var
from tpdiff_jax.models.layers.tiling import Tiles
from tpdiff_jax.models.open_sora_vae.config import OpenSoraVAEConfig
from tpdiff_jax.models.open_sora_vae.layers import TemporalDecoder, TemporalEncoder
from tpdiff_jax.types import Array, Params, PRNGKey


@dataclass(frozen=True)
class OpenSoraVAE:
    """The autoencoder as pure functions of a tree {"image": ..., "encoder", "decoder"}."""

    config: OpenSoraVAEConfig

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32."""
        key_image, key_encoder, key_decoder = jax.random.split(key, 3)
        return {
            "image": ImageVAE(self.config.image).init(key_image),
            "encoder": new_params(TemporalEncoder, self.config, key_encoder),
            "decoder": new_params(TemporalDecoder, self.config, key_decoder),
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
            video: pixels in [-1, 1], [b, 17 m, h, w, c], 17 being the config's `chunk_frames`.
            chunk_frames: frames that the image autoencoder holds at once, a divisor of 17 m; None:
                all of them.
            tiles: in pixels, multiples of the config's `factor`; None: whole frames.

        Returns:
            Mean and log-variance, float32 [b, 5 m, h / factor, w / factor, z] each, before
            `normalise`.

        Raises:
            ValueError: if lengths or sides do not come out even.
        """
        config, image = self.config, ImageVAE(self.config.image)
        _check_length("video", video, config.chunk_frames)
        frames = image.encode(params["image"], video, chunk_frames, tiles)[0]
        encoder = bind(TemporalEncoder, config, params["encoder"])

        def encode(chunk: Array) -> Array:
            before = ((0, 0), (config.num_missing, 0), (0, 0), (0, 0), (0, 0))
            return encoder(jnp.pad(chunk, before))

        return mean_and_log_var(_each(encode, image.normalise(frames), config.chunk_frames))

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
            latents: as `encode` gives them, [b, 5 m, h, w, z].
            chunk_latents: frames that the image autoencoder holds at once, a divisor of 17 m;
                None: all of them.
            tiles: in latents; None: whole frames.

        Returns:
            float32, [b, 17 m, factor h, factor w, c], about [-1, 1].

        Raises:
            ValueError: if lengths do not come out even.
        """
        config, image = self.config, ImageVAE(self.config.image)
        _check_length("latents", latents, config.chunk_latents)
        decoder = bind(TemporalDecoder, config, params["decoder"])

        def decode(chunk: Array) -> Array:
            return decoder(chunk)[:, config.num_missing :]

        frames = image.denormalise(_each(decode, latents, config.chunk_latents))
        return image.decode(params["image"], frames, chunk_latents, tiles)

    def normalise(self, latents: Array) -> Array:
        """Bring latents to about unit scale, channel by channel."""
        return (latents - jnp.asarray(self.config.shift)) / jnp.asarray(self.config.scale)

    def denormalise(self, latents: Array) -> Array:
        """Undo `normalise`."""
        return latents * jnp.asarray(self.config.scale) + jnp.asarray(self.config.shift)


def _check_length(name: str, video: Array, chunk: int) -> None:
    if video.ndim != 5 or not video.shape[1] or video.shape[1] % chunk:
        raise ValueError(f"{name} must be [b, {chunk} m, h, w, c], got {video.shape}")


def _each(apply: Callable[[Array], Array], x: Array, chunk: int) -> Array:
    """Run every chunk of [b, chunk m, ...] by itself, one after the other."""
    parts = rearrange(x, "b (n f) h w c -> n b f h w c", f=chunk)
    return rearrange(jax.lax.map(apply, parts), "n b f h w c -> b (n f) h w c")
