"""Shape of the AnimateDiff network, checked before anything is built; Stable Diffusion 1.5's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tpdiff_jax.models.layers.config_checks import check_config_choice
from tpdiff_jax.models.unet.config import UNetConfig


class MotionForm(NamedTuple):
    """What differs between the published motion modules.

    Attributes:
        is_in_middle: whether the middle of the U-Net has a motion module too.
        num_positions: frames of the full-rate video that a module was made for.
    """

    is_in_middle: bool
    num_positions: int


MOTION_FORMS = {
    "v1": MotionForm(is_in_middle=False, num_positions=24),
    "v2": MotionForm(is_in_middle=True, num_positions=32),
    "v3": MotionForm(is_in_middle=False, num_positions=32),
}
MOTION_NORMS = ("per_frame", "all_frames")


@dataclass(frozen=True, kw_only=True)
class AnimateDiffConfig(UNetConfig):
    """Shape of the network. Field names are those of the config group `model`.

    Frames are latents: 32 x 32 of them are a 256 x 256 video behind an autoencoder that divides its
    sides by 8. `motion_norm` says whether the group norm of a motion module sees one frame
    (AnimateDiff) or the whole video (diffusers).

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    num_heads: int = 8
    motion_form: str = "v3"
    motion_norm: str = "per_frame"

    def __post_init__(self) -> None:
        check_config_choice(self, "motion_form", MOTION_FORMS)
        check_config_choice(self, "motion_norm", MOTION_NORMS)
        super().__post_init__()

    @property
    def channel_units(self) -> Mapping[str, int]:
        """Fields that must divide the channels of every level."""
        return {"num_heads": self.num_heads, "num_groups": self.num_groups}

    @property
    def motion(self) -> MotionForm:
        """The motion modules' form."""
        return MOTION_FORMS[self.motion_form]
