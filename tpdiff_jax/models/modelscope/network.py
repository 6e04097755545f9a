"""ModelScope text-to-video: Stable Diffusion's U-Net on every frame, with time in every layer.

Convolutions and attention over time see all frames of a video, and so do their group norms. There
are no positions of frames: the network takes videos of any length, and has to tell the frame rate
from what moves. A stage of the pyramid that keeps one frame in several is therefore refused unless
`implicit_rate` asks for it. In training on such a pyramid the noise time says which stage, and so
which rate, it is, but where the windows of two stages overlap; published weights have never seen
another rate than their own. One frame alone runs through every layer, as diffusers runs it.

Source: Wang et al., ModelScope, arXiv 2308.06571, and Rombach et al., arXiv 2112.10752; diffusers'
UNet3DConditionModel, with which the tests compare.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.models.modelscope.config import ENTRANCE_HEADS, ModelScopeConfig
from tpdiff_jax.models.modelscope.layers import (
    Entrance,
    TimeLayer,
    TimeMiddleEnd,
    entrance_flops,
    time_layer_flops,
    time_middle_end_flops,
)
from tpdiff_jax.models.unet.network import UNet
from tpdiff_jax.models.unet.steps import Kind, Step, UNetForm, lay_steps
from tpdiff_jax.types import Layout, Shape, Strides

MODELSCOPE_FORM = UNetForm(
    layer=Kind(TimeLayer, time_layer_flops),
    middle_end=Kind(TimeMiddleEnd, time_middle_end_flops),
    entrance=Kind(Entrance, entrance_flops),
)


@functools.cache
def modelscope_steps(config: ModelScopeConfig) -> tuple[Step, ...]:
    """Return the steps between stem and head, in the order in which they run."""
    return lay_steps(config, MODELSCOPE_FORM)


@dataclass(frozen=True)
class ModelScope(UNet):
    """The network as pure functions of {"stem", "entrance", "down", "middle", "up", "head"}.

    Raises:
        ValueError: when `model.attention_kernel` cannot run on the layout's devices.
    """

    config: ModelScopeConfig
    layout: Layout = ONE_DEVICE

    @property
    def steps(self) -> tuple[Step, ...]:
        """What runs between stem and head, in this order."""
        return modelscope_steps(self.config)

    def axis_sizes(self, shape: Shape) -> Mapping[str, tuple[str, int]]:
        """Heads of every level and the pixels of a frame at the last one: attention's axes."""
        config = self.config
        heads = {"the number of heads before the first level": ("heads", ENTRANCE_HEADS)}
        for level, channels in enumerate(config.level_channels):
            what = f"model.level_channels[{level}] / model.head_dim"
            heads[what] = ("heads", channels // config.head_dim)
        return heads | self.coarsest_pixels(shape)

    def check_shape(self, shape: Shape, strides: Strides) -> None:
        """Check that every level can halve the frames and that the stage has the full frame rate.

        Args:
            shape: frames, height and width of a stage.
            strides: of the stage.

        Raises:
            ValueError: naming `model.level_channels` when a side is no multiple of the factor by
                which they halve it, or `model.implicit_rate` when the stage keeps one frame in
                several and the config does not allow that.
        """
        super().check_shape(shape, strides)
        if strides[0] > 1 and not self.config.implicit_rate:
            raise ValueError(
                f"model.implicit_rate=False refuses the stage of strides {strides} of "
                f"pyramid.strides: it keeps one frame in {strides[0]}, and nothing tells this "
                "network the frame rate; allowed: strides of 1 over time, as "
                "pyramid.frame_strides=(1,), or model.implicit_rate=True"
            )
