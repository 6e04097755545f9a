"""Shape of ModelScope's text-to-video network, checked before anything is built."""

from collections.abc import Mapping
from dataclasses import dataclass

from tpdiff_jax.models.unet.config import UNetConfig

ENTRANCE_HEADS = 8
"""Of the attention over frames before the first level; diffusers' class fixes it."""


@dataclass(frozen=True, kw_only=True)
class ModelScopeConfig(UNetConfig):
    """Shape of the network. Field names are those of the config group `model`.

    Frames are latents: 32 x 32 of them are a 256 x 256 video behind an autoencoder that divides its
    sides by 8. `head_dim` is the width of a head, of which a level has as many as fit its channels.
    Nothing tells the network where a frame stands or how fast frames follow each other;
    `implicit_rate` lets stages through that keep one frame in several all the same.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    head_dim: int = 64
    text_dim: int = 1024
    implicit_rate: bool = False

    @property
    def channel_units(self) -> Mapping[str, int]:
        """Fields that must divide the channels of every level."""
        return {"head_dim": self.head_dim, "num_groups": self.num_groups}

    @property
    def entrance_dim(self) -> int:
        """Width inside the attention over frames before the first level."""
        return ENTRANCE_HEADS * self.head_dim
