"""Shape of Wan's transformer, checked before anything is built; the defaults are Wan2.1-T2V-1.3B's.

Wan2.1-T2V-14B has num_heads 40, depth 40 and feed_forward_dim 13824.
"""

from dataclasses import dataclass

from tpdiff_jax.models.layers.attention_kernels import CHOICES
from tpdiff_jax.models.layers.basic import DTYPES
from tpdiff_jax.models.layers.block_stack import REMAT_POLICIES
from tpdiff_jax.models.layers.config_checks import check_config_choice, check_positive
from tpdiff_jax.models.layers.embeddings import NUM_TIME_FEATURES
from tpdiff_jax.models.layers.rope import split_head

NUM_AXES = 3  # frame, row and column turn a head


@dataclass(frozen=True, kw_only=True)
class WanConfig:
    """Shape of the network. Field names are those of the config group `model`.

    Frames are latents: 60 x 104 of them are a 480 x 832 video behind an autoencoder that divides
    its sides by 8.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    channels: int = 16
    patch_size: int = 2
    num_heads: int = 12
    head_dim: int = 128
    depth: int = 30
    feed_forward_dim: int = 8960
    rope_theta: float = 10_000.0
    num_time_features: int = NUM_TIME_FEATURES
    text_dim: int = 4096
    num_text_tokens: int = 512
    attention_kernel: str = "auto"
    dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"

    def __post_init__(self) -> None:
        check_positive(
            self,
            *("channels", "patch_size", "num_heads", "head_dim", "depth", "feed_forward_dim"),
            *("num_time_features", "text_dim", "num_text_tokens"),
        )
        check_config_choice(self, "attention_kernel", CHOICES)
        check_config_choice(self, "dtype", DTYPES)
        check_config_choice(self, "remat", REMAT_POLICIES)
        if self.head_dim % 2 or self.head_dim < 2 * NUM_AXES:
            raise ValueError(
                f"model.head_dim must be even and at least {2 * NUM_AXES}, two channels each for "
                f"frame, row and column, got {self.head_dim}"
            )
        if self.num_time_features % 2:
            raise ValueError(
                "model.num_time_features must be even, a cosine and a sine each, got "
                f"{self.num_time_features}"
            )
        if self.rope_theta <= 1.0:
            raise ValueError(f"model.rope_theta must be above 1, got {self.rope_theta}")

    @property
    def rope_dims(self) -> tuple[int, ...]:
        """Channels of a head that turn with frame, row and column."""
        return split_head(self.head_dim, NUM_AXES)

    @property
    def hidden_size(self) -> int:
        """Width of the tokens."""
        return self.num_heads * self.head_dim

    @property
    def patch_dim(self) -> int:
        """Values in a patch."""
        return self.patch_size**2 * self.channels

    @property
    def output_dim(self) -> int:
        """Values that are predicted for a patch."""
        return self.patch_dim

    @property
    def patch_sides(self) -> tuple[int, int, int]:
        """Frames, rows and columns of a patch; frames are never merged."""
        return 1, self.patch_size, self.patch_size
