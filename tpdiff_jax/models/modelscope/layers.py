"""ModelScope's layers of the U-Net: convolutions and attention over time after those of a frame.

A layer is a residual block, convolutions over time, and except at the coarsest level of the way
down and up attention within frames and attention over time. Before the first level frames attend
to each other once. None of this asks where a frame stands in the video.

Differs from the published training: no dropout in the convolutions over time.

Source: Wang et al., ModelScope, arXiv 2308.06571, section 4.2; diffusers' UNet3DConditionModel.
"""

import jax
from einops import rearrange
from flax import nnx

from tpdiff_jax.models.layers.basic import DTYPES, Conv, FrameGroupNorm
from tpdiff_jax.models.modelscope.config import ENTRANCE_HEADS, ModelScopeConfig
from tpdiff_jax.models.unet import flops as cost
from tpdiff_jax.models.unet.config import LayerShape
from tpdiff_jax.models.unet.layers import NORM_EPSILON, Context, residual_block
from tpdiff_jax.models.unet.transformers import Transformer
from tpdiff_jax.types import Array, Layout, Shape

TIME_TAPS = 3  # frames that a convolution over time sees
TIME_STEPS = ("step_1", "step_2", "step_3", "step_4")
"""Convolutions over time of a layer, in the order in which they run."""


def modelscope_config_of(shape: LayerShape) -> ModelScopeConfig:
    """Return the config of the network that a layer is a part of."""
    assert isinstance(shape.config, ModelScopeConfig)
    return shape.config


class TimeConvolution(nnx.Module):
    """conv(silu(norm(x))) over three frames of each pixel; the norm sees all frames together."""

    def __init__(self, dim: int, config: ModelScopeConfig, rngs: nnx.Rngs, *, is_zero: bool):
        lecun, zeros = nnx.initializers.lecun_normal(), nnx.initializers.zeros_init()
        self.norm = FrameGroupNorm(dim, config.num_groups, NORM_EPSILON, is_over_frames=True)
        self.conv = Conv(  # of an image that has frames for rows and pixels for columns
            dim,
            dim,
            (TIME_TAPS, 1),
            padding=((1, 1), (0, 0)),
            dtype=DTYPES[config.dtype],
            kernel_init=zeros if is_zero else lecun,
            rngs=rngs,
        )

    def __call__(self, x: Array) -> Array:
        """[b, f, h, w, d] -> [b, f, h, w, d]."""
        y = rearrange(jax.nn.silu(self.norm(x)), "b f h w d -> b f (h w) d")
        return self.conv(y).reshape(x.shape)


class TimeConvolutions(nnx.Module):
    """Four convolutions over time as a change to x; zero-initialised at their end."""

    def __init__(self, dim: int, config: ModelScopeConfig, rngs: nnx.Rngs):
        for name in TIME_STEPS:
            is_last = name == TIME_STEPS[-1]
            setattr(self, name, TimeConvolution(dim, config, rngs, is_zero=is_last))

    def __call__(self, x: Array) -> Array:
        """[b, f, h, w, d] -> [b, f, h, w, d]."""
        y = x
        for name in TIME_STEPS:
            y = getattr(self, name)(y)
        return x + y


class Entrance(nnx.Module):
    """Attention over time before the first level."""

    def __init__(self, shape: LayerShape, rngs: nnx.Rngs):
        config = modelscope_config_of(shape)
        self.temporal = Transformer(
            shape.channels,
            config,
            rngs,
            num_heads=ENTRANCE_HEADS,
            inner_dim=config.entrance_dim,
            is_over_frames=True,
        )

    def __call__(self, x: Array, context: Context, layout: Layout) -> Array:
        """[b, f, h, w, c] -> [b, f, h, w, c]."""
        del context
        return self.temporal.along_time(x, None, layout)


class TimeLayer(nnx.Module):
    """Residual block, convolutions over time, attention within frames, attention over time."""

    def __init__(self, shape: LayerShape, rngs: nnx.Rngs):
        config, dim = modelscope_config_of(shape), shape.out_channels
        heads = dim // config.head_dim
        self.residual = residual_block(shape.channels, dim, config, rngs)
        self.convolutions = TimeConvolutions(dim, config, rngs)
        self.spatial = (
            Transformer(dim, config, rngs, num_heads=heads, context_dim=config.text_dim)
            if shape.has_attention
            else None
        )
        self.temporal = (
            Transformer(dim, config, rngs, num_heads=heads, is_over_frames=True)
            if shape.has_attention
            else None
        )

    def __call__(self, x: Array, context: Context, layout: Layout) -> Array:
        """[b, f, h, w, c] -> [b, f, h, w, d]."""
        # Only attention may divide the pixels of a frame, see AnimateDiff's layer.
        x = layout.constrain(self.residual(x, context.time), "batch")
        x = layout.constrain(self.convolutions(x), "batch")
        if self.spatial is not None:
            x = layout.constrain(self.spatial.in_frames(x, context.text, layout), "batch")
        if self.temporal is not None:
            x = self.temporal.along_time(x, None, layout)
        return x


class TimeMiddleEnd(nnx.Module):
    """The residual block and the convolutions over time that end the middle."""

    def __init__(self, shape: LayerShape, rngs: nnx.Rngs):
        config, dim = modelscope_config_of(shape), shape.out_channels
        self.residual = residual_block(dim, dim, config, rngs)
        self.convolutions = TimeConvolutions(dim, config, rngs)

    def __call__(self, x: Array, context: Context, layout: Layout) -> Array:
        """[b, f, h, w, d] -> [b, f, h, w, d]."""
        return self.convolutions(layout.constrain(self.residual(x, context.time), "batch"))


def entrance_flops(shape: LayerShape, video: Shape) -> float:
    """FLOPs of the attention over time before the first level."""
    return cost.along_time_flops(shape, video, modelscope_config_of(shape).entrance_dim)


def time_layer_flops(shape: LayerShape, video: Shape) -> float:
    """FLOPs of a layer."""
    dim = shape.out_channels
    total = cost.residual_flops(shape, shape.channels, video) + _convolutions_flops(shape, video)
    if shape.has_attention:
        total += cost.spatial_flops(shape, video) + cost.along_time_flops(shape, video, dim)
    return total


def time_middle_end_flops(shape: LayerShape, video: Shape) -> float:
    """FLOPs of what ends the middle."""
    return cost.middle_end_flops(shape, video) + _convolutions_flops(shape, video)


def _convolutions_flops(shape: LayerShape, video: Shape) -> float:
    tokens = float(video[0] * cost.num_pixels(video, shape.level))
    return len(TIME_STEPS) * 2.0 * TIME_TAPS * tokens * shape.out_channels**2
