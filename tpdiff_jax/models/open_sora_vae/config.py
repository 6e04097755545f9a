"""Shape of Open-Sora 1.2's video autoencoder; the defaults are the published one's."""

from dataclasses import dataclass, field

from tpdiff_jax.checks import check_choice, whole_number
from tpdiff_jax.models.image_vae.config import ImageVAEConfig
from tpdiff_jax.models.layers.basic import DTYPES


@dataclass(frozen=True, kw_only=True)
class OpenSoraVAEConfig:
    """Shape of the two autoencoders, and what brings latents to unit scale.

    Levels over time are listed from the frames on; `halves_frames` says after which of them, but
    for the last, half of the frames are left. Every `chunk_frames` frames are coded by themselves.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    image: ImageVAEConfig = field(default_factory=ImageVAEConfig)
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    halves_frames: tuple[bool, ...] = (False, True, True)
    level_depth: int = 4
    num_groups: int = 32
    chunk_frames: int = 17
    shift: tuple[float, ...] = (-0.10, 0.34, 0.27, 0.98)
    scale: tuple[float, ...] = (3.85, 2.32, 2.33, 3.06)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("width", "level_depth", "num_groups", "chunk_frames"):
            whole_number(f"vae.{name}", getattr(self, name))
        if not self.multipliers or any(w < 1 or w % self.num_groups for w in self.level_channels):
            raise ValueError(
                f"vae.multipliers={self.multipliers} must make levels of multiples of "
                f"vae.num_groups={self.num_groups} channels, vae.width={self.width}"
            )
        if len(self.halves_frames) != len(self.multipliers) - 1:
            raise ValueError(
                f"vae.halves_frames={self.halves_frames} must have one entry less than "
                f"vae.multipliers={self.multipliers}"
            )
        for name in ("shift", "scale"):
            values = getattr(self, name)
            is_numbers = all(isinstance(value, int | float) for value in values)
            if len(values) != self.image.latent_channels or not is_numbers:
                raise ValueError(
                    f"vae.{name}={values!r} must have one number a channel of the latents, "
                    f"{self.image.latent_channels}"
                )
        if min(self.scale) <= 0:
            raise ValueError(f"vae.scale={self.scale} must be above 0")
        check_choice("vae.dtype", self.dtype, DTYPES)

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level over time."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def factor(self) -> int:
        """Pixels of a latent's side."""
        return self.image.factor

    @property
    def frames_per_latent(self) -> int:
        """Frames of a latent; the first of a chunk has zeros in the place of what is missing."""
        return 2 ** sum(self.halves_frames)

    @property
    def num_missing(self) -> int:
        """Frames of zeros before those of a chunk, so that they make whole latents."""
        return -self.chunk_frames % self.frames_per_latent

    @property
    def chunk_latents(self) -> int:
        """Latents of a chunk."""
        return (self.chunk_frames + self.num_missing) // self.frames_per_latent
