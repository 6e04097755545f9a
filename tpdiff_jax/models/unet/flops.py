"""Matrix-product and convolution FLOPs of the parts of a latent-diffusion U-Net, for one video.

A video's shape is (frames, height, width); a `LayerShape` is a layer's.
"""

from tpdiff_jax.models.layers.basic import TAPS
from tpdiff_jax.models.unet.config import LayerShape, UNetConfig
from tpdiff_jax.models.unet.transformers import FEED_FORWARD_RATIO
from tpdiff_jax.types import Shape


def num_pixels(video: Shape, level: int) -> int:
    """Pixels of one frame of (frames, height, width) at a level, 0 is the finest."""
    return (video[1] >> level) * (video[2] >> level)


def conv_flops(pixels: float, channels: int, out_channels: int) -> float:
    """Count the FLOPs of a 3 x 3 convolution.

    Args:
        pixels: of its output, over all frames.
        channels: of its input.
        out_channels: of its output.

    Returns:
        18 pixels channels out_channels.
    """
    return 2.0 * TAPS * pixels * channels * out_channels


def stem_flops(config: UNetConfig, video: Shape) -> float:
    """FLOPs of the first convolution and of the embedding of the noise time."""
    width, dim = config.level_channels[0], config.time_dim
    return head_flops(config, video) + 2.0 * width * dim + 2.0 * dim**2


def head_flops(config: UNetConfig, video: Shape) -> float:
    """FLOPs of the last convolution, as many as of the first."""
    return conv_flops(video[0] * num_pixels(video, 0), config.channels, config.level_channels[0])


def middle_end_flops(shape: LayerShape, video: Shape) -> float:
    """FLOPs of a residual block that keeps the width."""
    return residual_flops(shape, shape.out_channels, video)


def residual_flops(shape: LayerShape, channels: int, video: Shape) -> float:
    """Count the FLOPs of a residual block.

    Args:
        shape: the layer: level, output channels, config.
        channels: of the block's input.
        video: frames, height and width of the network's input.

    Returns:
        FLOPs for one video, shortcut and noise time included.
    """
    tokens, d = video[0] * num_pixels(video, shape.level), shape.out_channels
    shortcut = 2.0 * tokens * channels * d if channels != d else 0.0
    convs = conv_flops(tokens, channels, d) + conv_flops(tokens, d, d)
    return convs + shortcut + 2.0 * shape.config.time_dim * d


def downsample_flops(shape: LayerShape, video: Shape) -> float:
    """FLOPs of the convolution that halves a level's sides."""
    pixels = video[0] * num_pixels(video, shape.level + 1)
    return conv_flops(pixels, shape.out_channels, shape.out_channels)


def upsample_flops(shape: LayerShape, video: Shape) -> float:
    """FLOPs of the convolution after a level's sides have been doubled."""
    pixels = video[0] * num_pixels(video, shape.level - 1)
    return conv_flops(pixels, shape.out_channels, shape.out_channels)


def spatial_flops(shape: LayerShape, video: Shape) -> float:
    """FLOPs of the transformer within frames; the text's keys and values are made once."""
    config, d = shape.config, shape.out_channels
    pixels, num_text = num_pixels(video, shape.level), config.num_text_tokens
    tokens = float(video[0] * pixels)
    to_itself = 8.0 * tokens * d**2 + 4.0 * tokens * pixels * d
    to_text = 4.0 * tokens * d**2 + 4.0 * tokens * num_text * d
    around = around_flops(tokens, d, d)
    return around + to_itself + to_text + 4.0 * num_text * config.text_dim * d


def along_time_flops(shape: LayerShape, video: Shape, inner_dim: int) -> float:
    """Count the FLOPs of a transformer along time.

    Args:
        shape: the layer: level, output channels.
        video: frames, height and width of the network's input.
        inner_dim: width inside the transformer.

    Returns:
        FLOPs for one video, of both attentions and of all around them.
    """
    tokens = float(video[0] * num_pixels(video, shape.level))
    attention = 8.0 * tokens * inner_dim**2 + 4.0 * tokens * video[0] * inner_dim
    return around_flops(tokens, shape.out_channels, inner_dim) + 2.0 * attention


def around_flops(tokens: float, dim: int, inner_dim: int) -> float:
    """Count the FLOPs of a transformer's projections and of its gated feed-forward layer.

    Args:
        tokens: of the video.
        dim: width outside of the projections.
        inner_dim: width between them.

    Returns:
        FLOPs for one video.
    """
    feed_forward = 6.0 * tokens * inner_dim * FEED_FORWARD_RATIO * inner_dim
    return 4.0 * tokens * dim * inner_dim + feed_forward
