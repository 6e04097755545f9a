"""Shape of the causal video autoencoder; the defaults are those of Pyramid-Flow's."""

from dataclasses import dataclass

from tpdiff_jax.checks import check_above, check_choice, whole_number
from tpdiff_jax.models.layers.basic import DTYPES


@dataclass(frozen=True, kw_only=True)
class CausalVideoVAEConfig:
    """Shape of the autoencoder and the statistics of its latents.

    Levels are listed from the pixels to the latents, for encoder and decoder alike;
    `level_channels` has one entry a level, and every level but the last halves height, width and
    time. The first latent is the code of a single picture and has statistics of its own.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    channels: int = 3
    latent_channels: int = 16
    level_channels: tuple[int, ...] = (128, 256, 512, 512)
    encoder_depth: int = 2
    decoder_depth: int = 3
    num_groups: int = 32
    first_shift: float = -0.04
    first_scale: float = 1.8726
    later_shift: float = -0.2343
    later_scale: float = 3.0986
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in (
            *("channels", "latent_channels", "encoder_depth", "decoder_depth"),
            "num_groups",
        ):
            whole_number(f"vae.{field}", getattr(self, field))
        for field in ("first_scale", "later_scale"):
            check_above(f"vae.{field}", getattr(self, field), 0)
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
        """Pixels of a latent's side, and frames of every latent but the first."""
        return 2 ** (len(self.level_channels) - 1)
