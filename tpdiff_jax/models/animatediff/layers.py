"""AnimateDiff's layer of the U-Net: the motion module is what joins the frames.

A layer is a residual block, attention within frames (except at the coarsest level of the way down
and up) and a motion module. Everything but the motion modules is Stable Diffusion's and sees one
frame at a time.
"""

from flax import nnx

from tpdiff_jax.models.animatediff.config import AnimateDiffConfig
from tpdiff_jax.models.animatediff.positions import embed_positions
from tpdiff_jax.models.unet import flops as cost
from tpdiff_jax.models.unet.config import LayerShape
from tpdiff_jax.models.unet.layers import Context, residual_block
from tpdiff_jax.models.unet.transformers import Transformer
from tpdiff_jax.types import Array, Layout, Shape


def animatediff_config_of(shape: LayerShape) -> AnimateDiffConfig:
    """Return the config of the network that a layer is a part of."""
    assert isinstance(shape.config, AnimateDiffConfig)
    return shape.config


def has_motion(shape: LayerShape) -> bool:
    """Whether a layer has a motion module."""
    return not shape.is_middle or animatediff_config_of(shape).motion.is_in_middle


class Layer(nnx.Module):
    """Residual block, attention within frames, motion module."""

    def __init__(self, shape: LayerShape, rngs: nnx.Rngs):
        config, dim = animatediff_config_of(shape), shape.out_channels
        heads, is_over_frames = config.num_heads, config.motion_norm == "all_frames"
        self.residual = residual_block(shape.channels, dim, config, rngs)
        self.spatial = (
            Transformer(dim, config, rngs, num_heads=heads, context_dim=config.text_dim)
            if shape.has_attention
            else None
        )
        self.motion = (
            Transformer(dim, config, rngs, num_heads=heads, is_over_frames=is_over_frames)
            if has_motion(shape)
            else None
        )

    def __call__(self, x: Array, context: Context, layout: Layout) -> Array:
        """[b, f, h, w, c] -> [b, f, h, w, d]."""
        # Attention divides the pixels of a frame. Convolutions must not: XLA would exchange the
        # rows at their seams, and on meshes of several axes does so wrongly.
        x = layout.constrain(self.residual(x, context.time), "batch")
        if self.spatial is not None:
            x = layout.constrain(self.spatial.in_frames(x, context.text, layout), "batch")
        if self.motion is not None:
            positions = embed_positions(context.frame_positions, x.shape[-1])
            x = self.motion.along_time(x, positions, layout)
        return x


def animatediff_layer_flops(shape: LayerShape, video: Shape) -> float:
    """FLOPs of a residual block, attention within frames and a motion module."""
    total = cost.residual_flops(shape, shape.channels, video)
    if shape.has_attention:
        total += cost.spatial_flops(shape, video)
    if has_motion(shape):
        total += cost.along_time_flops(shape, video, shape.out_channels)
    return total
