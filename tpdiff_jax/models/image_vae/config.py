"""Shape of the image autoencoder; the defaults are Stable Diffusion's."""

from dataclasses import dataclass

from tpdiff_jax.checks import check_above, check_choice, whole_number
from tpdiff_jax.models.layers.basic import DTYPES


@dataclass(frozen=True, kw_only=True)
class ImageVAEConfig:
    """Shape of the autoencoder and the scale of its latents.

    Levels are listed from the pixels to the latents, for encoder and decoder alike;
    `level_channels` has one entry a level, and every level but the last halves height and width.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    channels: int = 3
    latent_channels: int = 4
    level_channels: tuple[int, ...] = (128, 256, 512, 512)
    level_depth: int = 2
    num_groups: int = 32
    scale: float = 0.18215
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in ("channels", "latent_channels", "level_depth", "num_groups"):
            whole_number(f"vae.{field}", getattr(self, field))
        check_above("vae.scale", self.scale, 0)
        if not self.level_channels or any(
            channels <= 0 or channels % self.num_groups for channels in self.level_channels
        ):
            raise ValueError(
                f"vae.level_channels must be multiples of vae.num_groups={self.num_groups}, "
                f"got {self.level_channels}"
            )
        check_choice("vae.dtype", self.dtype, DTYPES)

    @property
    def factor(self) -> int:
        """Pixels of a latent's side."""
        return 2 ** (len(self.level_channels) - 1)
