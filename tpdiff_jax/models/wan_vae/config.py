"""Shape of Wan's causal video autoencoder; the defaults are those of Wan 2.1."""

from dataclasses import dataclass

from tpdiff_jax.checks import check_choice, whole_number
from tpdiff_jax.models.layers.basic import DTYPES

LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WanVAEConfig:
    """Shape of the autoencoder and the statistics of its latents.

    Levels are listed from the pixels to the latents, for encoder and decoder alike;
    `level_channels` has one entry a level. Every level but the last halves height and width, and
    time where `halves_time` says so; the decoder has one residual block a level more than
    `level_depth`.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    channels: int = 3
    latent_channels: int = 16
    level_channels: tuple[int, ...] = (96, 192, 384, 384)
    level_depth: int = 2
    halves_time: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] = LATENTS_MEAN
    latents_std: tuple[float, ...] = LATENTS_STD
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in ("channels", "latent_channels", "level_depth"):
            whole_number(f"vae.{field}", getattr(self, field))
        widths = self.level_channels
        if not widths or any(channels <= 0 or channels % 2 for channels in widths):
            raise ValueError(f"vae.level_channels must be even and positive, got {widths}")
        if len(self.halves_time) != len(widths) - 1:
            raise ValueError(
                f"vae.halves_time must have {len(widths) - 1} entries, one for every level but "
                f"the last, got {self.halves_time}"
            )
        for field in ("latents_mean", "latents_std"):
            if len(values := getattr(self, field)) != self.latent_channels:
                raise ValueError(
                    f"vae.{field} must have vae.latent_channels={self.latent_channels} entries, "
                    f"got {len(values)}"
                )
        if min(self.latents_std) <= 0:
            raise ValueError(f"vae.latents_std must be above 0, got {self.latents_std}")
        check_choice("vae.dtype", self.dtype, DTYPES)

    @property
    def factor(self) -> int:
        """Pixels of a latent's side."""
        return 2 ** len(self.halves_time)

    @property
    def frames_per_latent(self) -> int:
        """Frames of every latent but the first."""
        return 2 ** sum(self.halves_time)
