"""Shape of a latent-diffusion U-Net on the frames of a video, checked before it is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tpdiff_jax.models.layers.attention_kernels import CHOICES as ATTENTION_KERNELS
from tpdiff_jax.models.layers.basic import DTYPES
from tpdiff_jax.models.layers.block_stack import REMAT_POLICIES
from tpdiff_jax.models.layers.config_checks import check_config_choice, check_positive


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Fields that every such network has; a network's own class adds those of its layers.

    `level_channels` has one entry a level, finest first; every level but the last halves height and
    width and lets frames look at the text.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    channels: int = 4
    level_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    level_depth: int = 2
    num_groups: int = 32
    text_dim: int = 768
    num_text_tokens: int = 77
    attention_kernel: str = "auto"
    dtype: str = "float32"
    remat: str = "none"

    def __post_init__(self) -> None:
        check_positive(
            self,
            *("channels", "level_depth", "text_dim", "num_text_tokens"),
            *self.channel_units,
        )
        check_config_choice(self, "attention_kernel", ATTENTION_KERNELS)
        check_config_choice(self, "dtype", DTYPES)
        check_config_choice(self, "remat", REMAT_POLICIES)
        self._check_channels()

    def _check_channels(self) -> None:
        for name, unit in self.channel_units.items():
            if not self.level_channels or any(c <= 0 or c % unit for c in self.level_channels):
                raise ValueError(
                    f"model.level_channels must be multiples of model.{name}={unit}, "
                    f"got {self.level_channels}"
                )

    @property
    def channel_units(self) -> Mapping[str, int]:
        """Fields that must divide the channels of every level."""
        return {"num_groups": self.num_groups}

    @property
    def num_levels(self) -> int:
        """Levels of the U-Net."""
        return len(self.level_channels)

    @property
    def factor(self) -> int:
        """Latents along a side for each of the coarsest level."""
        return 2 ** (self.num_levels - 1)

    @property
    def time_dim(self) -> int:
        """Width of the embedding of the noise time."""
        return 4 * self.level_channels[0]


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """A residual block and what follows it: attention within frames, what joins the frames.

    Attributes:
        config: the network; a class of its own below `UNetConfig`.
        level: 0 is the finest.
        channels: what comes in.
        out_channels: what goes out.
        has_attention: whether frames attend to themselves and to the text.
        is_middle: whether it is the layer between the ways down and up.
    """

    config: UNetConfig
    level: int
    channels: int
    out_channels: int
    has_attention: bool
    is_middle: bool = False


class UNetShape(NamedTuple):
    """The layers of a U-Net in the order in which they run.

    Attributes:
        down: layers of each level, finest first.
        middle: the layer between; a second residual block follows it.
        up: layers of each level, coarsest first.
    """

    down: tuple[tuple[LayerShape, ...], ...]
    middle: LayerShape
    up: tuple[tuple[LayerShape, ...], ...]


def unet_shape(config: UNetConfig) -> UNetShape:
    """Lay out the U-Net: what a layer or a downsampling gave going down is seen again going up."""
    widths, last = config.level_channels, config.num_levels - 1
    skips = [widths[0]]  # channels of what the way up will see, in order

    def layer(level: int, channels: int) -> LayerShape:
        return LayerShape(
            config=config,
            level=level,
            channels=channels,
            out_channels=widths[level],
            has_attention=level != last,
        )

    down, up, width = [], [], widths[0]
    for level in range(config.num_levels):
        inputs = (width,) + (widths[level],) * (config.level_depth - 1)
        down.append(tuple(layer(level, channels) for channels in inputs))
        width = widths[level]
        skips += [width] * (config.level_depth + (level != last))
    for level in reversed(range(config.num_levels)):
        inputs = (width,) + (widths[level],) * config.level_depth
        up.append(tuple(layer(level, channels + skips.pop()) for channels in inputs))
        width = widths[level]
    middle = LayerShape(
        config=config,
        level=last,
        channels=widths[last],
        out_channels=widths[last],
        has_attention=True,
        is_middle=True,
    )
    return UNetShape(tuple(down), middle, tuple(up))
