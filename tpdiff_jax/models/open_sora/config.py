"""Shape of Open-Sora's transformers, checked before anything is built; the defaults are 1.0's.

    "stdit"   Open-Sora 1.0: a layer attends within frames, then over time
    "stdit3"  Open-Sora 1.2: a layer is a whole block within frames and a whole block over time

Open-Sora 1.2 has form "stdit3", num_text_tokens 300 and qk_norm.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tpdiff_jax.models.layers.attention_kernels import CHOICES
from tpdiff_jax.models.layers.basic import DTYPES
from tpdiff_jax.models.layers.block_stack import REMAT_POLICIES
from tpdiff_jax.models.layers.config_checks import (
    check_config_choice,
    check_feed_forward,
    check_positive,
)

FORMS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "stdit": {"both": ("space", "time")},
    "stdit3": {"space": ("space",), "time": ("time",)},
}
"""Blocks of a layer by form: name of each, and the axes that it attends over."""
FPS_OF = ("clip", "stage")


@dataclass(frozen=True, kw_only=True)
class OpenSoraConfig:
    """Shape of the network. Field names are those of the config group `model`.

    Frames are latents. `base_side` is the side, in latents, of square frames whose patches stand at
    0, 1, 2, ...; frames of any size are stretched to it. `time_scale` divides the positions of
    frames ("stdit"); `fps` are the frames a second of a clip, and `fps_of` says whether every stage
    is told that or its own ("stdit3"). `has_variance` doubles the output: published weights learned
    a variance too, which is dropped.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    form: str = "stdit"
    channels: int = 4
    patch_size: int = 2
    hidden_size: int = 1152
    num_heads: int = 16
    depth: int = 28
    mlp_ratio: float = 4.0
    qk_norm: bool = False
    text_dim: int = 4096
    num_text_tokens: int = 120
    base_side: int = 64
    time_scale: float = 1.0
    fps: float = 24.0
    fps_of: str = "clip"
    has_variance: bool = True
    attention_kernel: str = "auto"
    dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"

    def __post_init__(self) -> None:
        check_positive(
            self,
            *("channels", "patch_size", "hidden_size", "num_heads", "depth", "mlp_ratio"),
            *("text_dim", "num_text_tokens", "base_side", "time_scale", "fps"),
        )
        check_config_choice(self, "form", FORMS)
        check_config_choice(self, "fps_of", FPS_OF)
        check_config_choice(self, "attention_kernel", CHOICES)
        check_config_choice(self, "dtype", DTYPES)
        check_config_choice(self, "remat", REMAT_POLICIES)
        check_feed_forward(self)
        if self.hidden_size % 4:
            raise ValueError(
                "model.hidden_size must be a multiple of 4, a sine and a cosine each of row and "
                f"column, got {self.hidden_size}"
            )
        if self.hidden_size % self.num_heads or self.head_dim % 2:
            raise ValueError(
                "model.num_heads must divide hidden_size into heads of an even number of channels; "
                f"got {self.num_heads} heads for {self.hidden_size} channels"
            )

    @property
    def blocks(self) -> Mapping[str, tuple[str, ...]]:
        """Blocks of a layer: name, and the axes that it attends over."""
        return FORMS[self.form]

    @property
    def is_rotary(self) -> bool:
        """Whether frames turn the heads over time; else sinusoids are added in the first layer."""
        return self.form == "stdit3"

    @property
    def base_pixels(self) -> int:
        """`base_side` in pixels, of an autoencoder that divides sides by 8, as Open-Sora's does."""
        return 8 * self.base_side

    @property
    def head_dim(self) -> int:
        """Channels of an attention head."""
        return self.hidden_size // self.num_heads

    @property
    def feed_forward_dim(self) -> int:
        """Hidden width of the feed-forward layers."""
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def patch_dim(self) -> int:
        """Values in a patch."""
        return self.patch_size**2 * self.channels

    @property
    def output_dim(self) -> int:
        """Values that are predicted for a patch."""
        return self.patch_dim * (2 if self.has_variance else 1)

    @property
    def patch_sides(self) -> tuple[int, int, int]:
        """Frames, rows and columns of a patch; frames are never merged."""
        return 1, self.patch_size, self.patch_size
