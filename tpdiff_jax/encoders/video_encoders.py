"""Video autoencoders by name: frames to latents of about unit scale, and back.

"pixels"            none: clips are stored as they are
"causal_video_vae"  Pyramid-Flow's: 1 + 8 m frames to 1 + m latents of an eighth of each side
"image_vae"         Stable Diffusion's: every frame to a latent of an eighth of each side
"open_sora_vae"     Open-Sora 1.2's: 17 m frames to 5 m latents of an eighth of each side
"wan_vae"           Wan's: 1 + 4 m frames to 1 + m latents of an eighth of each side
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from tpdiff_jax.encoders.stored import as_stored
from tpdiff_jax.models.causal_video_vae.network import CausalVideoVAE
from tpdiff_jax.models.causal_video_vae.weights import load_causal_video_vae, read_vae_config
from tpdiff_jax.models.image_vae.network import ImageVAE
from tpdiff_jax.models.image_vae.weights import load_image_vae, read_image_vae_config
from tpdiff_jax.models.layers.tiling import Tiles
from tpdiff_jax.models.open_sora_vae.network import OpenSoraVAE
from tpdiff_jax.models.open_sora_vae.weights import load_open_sora_vae, read_open_sora_vae_config
from tpdiff_jax.models.wan_vae.network import WanVAE
from tpdiff_jax.models.wan_vae.weights import load_wan_vae, read_wan_vae_config
from tpdiff_jax.types import Array, Params
from tpdiff_jax.weights.weight_hash import hash_folders

WHOLE_SIDE = 1024  # pixels; larger frames run in tiles, which bounds the memory
TILES = Tiles(side=512, overlap=128)


class VideoEncoder(Protocol):
    """A frozen video autoencoder, one clip at a time."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What decides the latents, as JSON holds it."""
        ...

    def check_clip(self, num_frames: int, height: int, width: int) -> None:
        """Refuse a size of clips that has no latents.

        Args:
            num_frames: frames of a clip.
            height: of a frame, in pixels.
            width: of a frame, in pixels.

        Raises:
            ValueError: naming the field of `prepare`, its value and what is allowed.
        """
        ...

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Uint8 [f, h, w, 3] -> float16 latents [f', h', w', c], the posterior's mean, scaled.

        Raises:
            ValueError: when a latent is no number, or none that float16 holds.
        """
        ...

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents [f', h', w', c] -> float32 pixels [f, h, w, 3], about [-1, 1]."""
        ...


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """A video autoencoder with its weights.

    Attributes:
        name: a key of `VIDEO_ENCODERS`.
        vae: the autoencoder.
        params: its parameters.
        frames_per_latent: frames that each latent but the first stands for.
        weights_sha256: of its folder.
        frames_per_chunk: where it is above 1, clips are made of whole chunks of so many frames;
            else of one frame and whole latents.
    """

    name: str
    vae: CausalVideoVAE | ImageVAE | OpenSoraVAE | WanVAE
    params: Params
    frames_per_latent: int
    weights_sha256: str
    frames_per_chunk: int = 1

    @property
    def facts(self) -> Mapping[str, Any]:
        """Name, weights and the rule of tiles, which change the latents of large frames."""
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "tiles": {"whole_side": WHOLE_SIDE, **dataclasses.asdict(TILES)},
        }

    def check_clip(self, num_frames: int, height: int, width: int) -> None:
        """Refuse clips whose frames make no whole latents, or whose sides `factor` does not divide.

        Args:
            num_frames: 1 + a multiple of `frames_per_latent`, or one of `frames_per_chunk`.
            height: of a frame, in pixels.
            width: of a frame, in pixels.

        Raises:
            ValueError: naming the field of `prepare`, its value and what is allowed.
        """
        factor, first = self.vae.config.factor, self.frames_per_chunk
        unit, what = self.frames_per_latent, "1 + a multiple"
        if first > 1:
            unit, what = first, "a multiple"
        if (num_frames - first) % unit:
            raise ValueError(
                f"prepare.num_frames={num_frames} must be {what} of {unit}; nearest: "
                f"{_nearest(num_frames, unit, first=first)}"
            )
        for name, side in (("height", height), ("width", width)):
            if side % factor:
                raise ValueError(
                    f"prepare.{name}={side} must be a multiple of {factor}; nearest: "
                    f"{_nearest(side, factor, first=factor)}"
                )

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Return float16 latents [f', h', w', c] of uint8 [f, h, w, 3]; see `VideoEncoder`.

        Raises:
            ValueError: when a latent is no number, or none that float16 holds.
        """
        return as_stored(
            np.asarray(self._encode(self.params, frames[None])[0]),
            f"{self.name} makes latents that are NaN or exceed float16: its weights "
            f"(SHA-256 {self.weights_sha256}) are damaged, or another autoencoder's",
        )

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents [f', h', w', c] -> float32 pixels [f, h, w, 3], about [-1, 1]."""
        return np.asarray(self._decode(self.params, np.asarray(latents, np.float32)[None])[0])

    @functools.cached_property
    def _encode(self) -> Callable[[Params, np.ndarray], Array]:
        vae, unit = self.vae, self.frames_per_latent

        def encode(params: Params, frames: Array) -> Array:
            tiles = TILES if max(frames.shape[2:4]) > WHOLE_SIDE else None
            pixels = frames.astype(np.float32) / 127.5 - 1.0
            return vae.normalise(vae.encode(params, pixels, unit, tiles)[0])

        return jax.jit(encode)

    @functools.cached_property
    def _decode(self) -> Callable[[Params, np.ndarray], Array]:
        vae, factor = self.vae, self.vae.config.factor

        def decode(params: Params, latents: Array) -> Array:
            tiles = Tiles(side=TILES.side // factor, overlap=TILES.overlap // factor)
            is_large = factor * max(latents.shape[2:4]) > WHOLE_SIDE
            return vae.decode(params, vae.denormalise(latents), 1, tiles if is_large else None)

        return jax.jit(decode)


def open_causal_video_vae(folder: pathlib.Path) -> Autoencoder:
    """Read the autoencoder; its shape is that of the folder's config.json."""
    config = read_vae_config(folder)
    params = jax.device_put(load_causal_video_vae(folder, config))
    vae = CausalVideoVAE(config)
    return Autoencoder("causal_video_vae", vae, params, config.factor, hash_folders(folder))


def open_image_vae(folder: pathlib.Path) -> Autoencoder:
    """Read the autoencoder; its shape is that of the folder's config.json."""
    config = read_image_vae_config(folder)
    params = jax.device_put(load_image_vae(folder, config))
    return Autoencoder("image_vae", ImageVAE(config), params, 1, hash_folders(folder))


def open_open_sora_vae(folder: pathlib.Path) -> Autoencoder:
    """Read the autoencoder; its shape is that of the folder's config.json."""
    config = read_open_sora_vae_config(folder)
    params = jax.device_put(load_open_sora_vae(folder, config))
    chunk, sha256 = config.chunk_frames, hash_folders(folder)
    return Autoencoder("open_sora_vae", OpenSoraVAE(config), params, 1, sha256, chunk)


def open_wan_vae(folder: pathlib.Path) -> Autoencoder:
    """Read the autoencoder; its shape is that of the folder's config.json."""
    config = read_wan_vae_config(folder)
    params = jax.device_put(load_wan_vae(folder, config))
    unit = config.frames_per_latent
    return Autoencoder("wan_vae", WanVAE(config), params, unit, hash_folders(folder))


VIDEO_ENCODERS: Mapping[str, Callable[[pathlib.Path], VideoEncoder]] = {
    "causal_video_vae": open_causal_video_vae,
    "image_vae": open_image_vae,
    "open_sora_vae": open_open_sora_vae,
    "wan_vae": open_wan_vae,
}
FIRST_LATENT_APART = ("causal_video_vae", "open_sora_vae", "wan_vae")
"""Those whose first latent is the code of one frame, and the others of several."""


def open_video_encoder(name: str, folder: pathlib.Path) -> VideoEncoder:
    """Read a video autoencoder.

    Args:
        name: a key of `VIDEO_ENCODERS`.
        folder: where its weights lie.

    Raises:
        ValueError: when the folder does not hold them.
    """
    return VIDEO_ENCODERS[name](folder)


def _nearest(value: int, unit: int, first: int) -> str:
    """The valid values around one that is not: `first` + a multiple of `unit`."""
    below = value - (value - first) % unit
    return " or ".join(str(valid) for valid in (below, below + unit) if valid >= first)
