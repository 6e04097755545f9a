"""Shape of the Flux transformer, checked before anything is built; the defaults are miniFLUX's."""

from dataclasses import dataclass

from tpdiff_jax.models.layers.attention_kernels import CHOICES
from tpdiff_jax.models.layers.basic import DTYPES
from tpdiff_jax.models.layers.block_stack import REMAT_POLICIES
from tpdiff_jax.models.layers.config_checks import (
    check_config_choice,
    check_feed_forward,
    check_positive,
)


@dataclass(frozen=True, kw_only=True)
class FluxConfig:
    """Shape of the network. Field names are those of the config group `model`.

    Frames are latents: 48 x 80 of them are a 384 x 640 video behind an autoencoder that divides its
    sides by 8. `rope_dims` are the channels of a head for frame, row and column. With `is_causal`
    a frame sees the text and the frames up to itself; text and frame 0 see each other.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    channels: int = 16
    patch_size: int = 2
    num_heads: int = 30
    num_double_blocks: int = 8
    num_single_blocks: int = 16
    mlp_ratio: float = 4.0
    rope_dims: tuple[int, int, int] = (16, 24, 24)
    rope_theta: float = 10_000.0
    text_dim: int = 4096
    num_text_tokens: int = 128
    pooled_dim: int = 768
    is_causal: bool = False
    attention_kernel: str = "auto"
    dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"

    def __post_init__(self) -> None:
        check_positive(
            self,
            *("channels", "patch_size", "num_heads", "num_double_blocks", "num_single_blocks"),
            "mlp_ratio",
            *("text_dim", "num_text_tokens", "pooled_dim"),
        )
        check_config_choice(self, "attention_kernel", CHOICES)
        check_config_choice(self, "dtype", DTYPES)
        check_config_choice(self, "remat", REMAT_POLICIES)
        check_feed_forward(self)
        if len(self.rope_dims) != 3 or any(dim <= 0 or dim % 2 for dim in self.rope_dims):
            raise ValueError(
                "model.rope_dims must be three positive even numbers, for frame, row and column, "
                f"got {self.rope_dims}"
            )
        if self.rope_theta <= 1.0:
            raise ValueError(f"model.rope_theta must be above 1, got {self.rope_theta}")

    @property
    def head_dim(self) -> int:
        """Channels of an attention head; every one of them turns with a position."""
        return sum(self.rope_dims)

    @property
    def hidden_size(self) -> int:
        """Width of the tokens."""
        return self.num_heads * self.head_dim

    @property
    def feed_forward_dim(self) -> int:
        """Hidden width of the feed-forward layers."""
        return round(self.hidden_size * self.mlp_ratio)

    @property
    def patch_dim(self) -> int:
        """Values in a patch."""
        return self.patch_size**2 * self.channels
