"""Matrix-product and convolution FLOPs of the AnimateDiff network's parts, for one video."""

from tpdiff_jax.models.animatediff_config import AnimateDiffConfig, LayerShape
from tpdiff_jax.models.unet_transformers import FEED_FORWARD_RATIO

TAPS = 9  # of a 3 x 3 convolution


def conv_flops(num_places: float, channels: int, out_channels: int) -> float:
    """FLOPs of a 3 x 3 convolution that gives `num_places` places."""
    return 2.0 * TAPS * num_places * channels * out_channels


def stem_flops(config: AnimateDiffConfig, num_frames: int) -> float:
    """FLOPs of the first convolution and of the embedding of the noise time."""
    width, dim = config.level_channels[0], config.time_dim
    conv = conv_flops(num_frames * config.num_places(0), config.channels, width)
    return conv + 2.0 * width * dim + 2.0 * dim**2


def head_flops(config: AnimateDiffConfig, num_frames: int) -> float:
    """FLOPs of the last convolution."""
    return stem_flops(config, num_frames) - stem_flops(config, 0)


def layer_flops(shape: LayerShape, num_frames: int) -> float:
    """FLOPs of a residual block, attention within frames and a motion module."""
    total = residual_flops(shape, shape.channels, num_frames)
    if shape.has_attention:
        total += spatial_flops(shape, num_frames)
    if shape.has_motion:
        total += motion_flops(shape, num_frames)
    return total


def middle_end_flops(shape: LayerShape, num_frames: int) -> float:
    """FLOPs of a residual block that keeps the width."""
    return residual_flops(shape, shape.out_channels, num_frames)


def residual_flops(shape: LayerShape, channels: int, num_frames: int) -> float:
    """FLOPs of a residual block with this many input channels."""
    tokens, d = num_frames * shape.config.num_places(shape.level), shape.out_channels
    shortcut = 2.0 * tokens * channels * d if channels != d else 0.0
    convs = conv_flops(tokens, channels, d) + conv_flops(tokens, d, d)
    return convs + shortcut + 2.0 * shape.config.time_dim * d


def halving_flops(shape: LayerShape, num_frames: int) -> float:
    """FLOPs of the convolution that halves a level's sides."""
    places = num_frames * shape.config.num_places(shape.level + 1)
    return conv_flops(places, shape.out_channels, shape.out_channels)


def doubling_flops(shape: LayerShape, num_frames: int) -> float:
    """FLOPs of the convolution after a level's sides have been doubled."""
    places = num_frames * shape.config.num_places(shape.level - 1)
    return conv_flops(places, shape.out_channels, shape.out_channels)


def spatial_flops(shape: LayerShape, num_frames: int) -> float:
    """FLOPs of the transformer within frames; the text's keys and values are made once."""
    config, d = shape.config, shape.out_channels
    places, num_text = config.num_places(shape.level), config.num_text_tokens
    tokens = float(num_frames * places)
    to_itself = 8.0 * tokens * d**2 + 4.0 * tokens * places * d
    to_text = 4.0 * tokens * d**2 + 4.0 * tokens * num_text * d
    return around_flops(tokens, d) + to_itself + to_text + 4.0 * num_text * config.text_dim * d


def motion_flops(shape: LayerShape, num_frames: int) -> float:
    """FLOPs of a motion module."""
    d = shape.out_channels
    tokens = float(num_frames * shape.config.num_places(shape.level))
    return around_flops(tokens, d) + 2.0 * (8.0 * tokens * d**2 + 4.0 * tokens * num_frames * d)


def around_flops(tokens: float, d: int) -> float:
    """FLOPs of a transformer's projections in and out and of its gated feed-forward layer."""
    return 4.0 * tokens * d**2 + 6.0 * tokens * d * FEED_FORWARD_RATIO * d
