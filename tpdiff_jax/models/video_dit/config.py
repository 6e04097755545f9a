"""Shape of the video DiT, checked before anything is built."""

from dataclasses import dataclass

from tpdiff_jax.models.layers.attention_kernels import CHOICES
from tpdiff_jax.models.layers.basic import ACTIVATIONS, DTYPES
from tpdiff_jax.models.layers.block_stack import REMAT_POLICIES
from tpdiff_jax.models.layers.config_checks import (
    check_config_choice,
    check_feed_forward,
    check_positive,
)

ATTENTIONS = ("factorised", "joint")
FOLD = 2
"""Side of the square of a level's pixels that is one of the next level's, or a token's."""


@dataclass(frozen=True, kw_only=True)
class VideoDiTConfig:
    """Shape of the network. Field names are those of the config group `model`.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    channels: int = 1
    patch_size: int = 4
    level_channels: tuple[int, ...] = ()
    hidden_size: int = 192
    depth: int = 6
    num_heads: int = 3
    mlp_ratio: float = 4.0
    attention: str = "factorised"
    attention_kernel: str = "auto"
    qk_norm: bool = True
    activation: str = "gelu"
    rope_theta: float = 10_000.0
    num_classes: int = 10
    dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"

    def __post_init__(self) -> None:
        check_positive(
            self,
            *("channels", "patch_size", "hidden_size", "depth", "num_heads", "mlp_ratio"),
        )
        if self.num_classes < 0:  # 0: clips without labels
            raise ValueError(f"model.num_classes must not be negative, got {self.num_classes}")
        check_config_choice(self, "attention", ATTENTIONS)
        check_config_choice(self, "attention_kernel", CHOICES)
        check_config_choice(self, "activation", ACTIVATIONS)
        check_config_choice(self, "dtype", DTYPES)
        check_config_choice(self, "remat", REMAT_POLICIES)
        if self.rope_theta <= 1.0:
            raise ValueError(f"model.rope_theta must be above 1, got {self.rope_theta}")
        check_feed_forward(self)
        self._check_heads()
        self._check_levels()

    def _check_heads(self) -> None:
        num_axes = 3 if self.attention == "joint" else 2
        head_dim, rest = divmod(self.hidden_size, self.num_heads)
        if rest or head_dim % 2 or head_dim < 2 * num_axes:
            raise ValueError(
                "model.num_heads must divide hidden_size into heads of an even number of "
                f"channels, at least {2 * num_axes}; got {self.num_heads} heads for "
                f"{self.hidden_size} channels"
            )

    def _check_levels(self) -> None:
        if any(channels < 2 or channels % 2 for channels in self.level_channels):
            raise ValueError(
                "model.level_channels must be even and at least 2 each (positions are rotary), "
                f"got {self.level_channels}"
            )
        unit = FOLD ** len(self.level_channels)
        if self.patch_size % unit:
            raise ValueError(
                f"model.level_channels={self.level_channels} halves frames "
                f"{len(self.level_channels)} times: model.patch_size must be a multiple of "
                f"{unit}, got {self.patch_size}"
            )

    @property
    def patch_dim(self) -> int:
        """Values in a patch: of its pixels, or of those of the last level."""
        if self.level_channels:
            return FOLD**2 * self.level_channels[-1]
        return self.patch_size**2 * self.channels

    @property
    def head_dim(self) -> int:
        """Channels of an attention head."""
        return self.hidden_size // self.num_heads

    @property
    def attention_axes(self) -> tuple[str, ...]:
        """Attentions of a block, in order."""
        return ("space", "time") if self.attention == "factorised" else ("video",)

    @property
    def num_sublayers(self) -> int:
        """Modulated layers of a block: its attentions and the feed-forward."""
        return len(self.attention_axes) + 1

    @property
    def feed_forward_dim(self) -> int:
        """Hidden width of the feed-forward layers."""
        return round(self.hidden_size * self.mlp_ratio)
