"""AnimateDiff: Stable Diffusion's U-Net on every frame, with motion modules that join the frames.

Motion modules embed the position of a frame in the full-rate video, so a frame kept by several
stages of the pyramid looks the same to all of them, and the stride itself needs no embedding.
Nothing embeds rows and columns: a coarse stage is to it a video of small frames. Group norms see
one frame at a time; with `motion_norm="all_frames"`, which is diffusers' form, those of the motion
modules see all frames, and their statistics then depend on how many a stage has.

Source: Guo et al., AnimateDiff, arXiv 2307.04725, and Rombach et al., arXiv 2112.10752; diffusers'
UNetMotionModel, with which the tests compare.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tpdiff_jax.models.animatediff.config import AnimateDiffConfig
from tpdiff_jax.models.animatediff.layers import Layer, animatediff_layer_flops
from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.models.unet.flops import middle_end_flops
from tpdiff_jax.models.unet.layers import MiddleEnd
from tpdiff_jax.models.unet.network import UNet
from tpdiff_jax.models.unet.steps import Kind, Step, UNetForm, lay_steps
from tpdiff_jax.types import ArrayLike, Layout, Shape, Strides

ANIMATEDIFF_FORM = UNetForm(
    layer=Kind(Layer, animatediff_layer_flops), middle_end=Kind(MiddleEnd, middle_end_flops)
)


@functools.cache
def unet_steps(config: AnimateDiffConfig) -> tuple[Step, ...]:
    """Return the steps between stem and head, in the order in which they run."""
    return lay_steps(config, ANIMATEDIFF_FORM)


@dataclass(frozen=True)
class AnimateDiff(UNet):
    """The network as pure functions of {"stem", "down", "middle", "up", "head"}.

    Raises:
        ValueError: when `model.attention_kernel` cannot run on the layout's devices.
    """

    config: AnimateDiffConfig
    layout: Layout = ONE_DEVICE

    @property
    def steps(self) -> tuple[Step, ...]:
        """What runs between stem and head, in this order."""
        return unet_steps(self.config)

    def axis_sizes(self, shape: Shape) -> Mapping[str, tuple[str, int]]:
        """Heads and the pixels of a frame at the last level: attention is divided along them."""
        heads = {"model.num_heads": ("heads", self.config.num_heads)}
        return heads | self.coarsest_pixels(shape)

    def check_shape(self, shape: Shape, strides: Strides) -> None:
        """Check that every level can halve the frames and every frame has a position.

        Args:
            shape: frames, height and width of a stage.
            strides: of the stage.

        Raises:
            ValueError: naming `model.level_channels` when a side is no multiple of the factor by
                which they halve it, or `model.motion_form` when the video is too long for it.
        """
        super().check_shape(shape, strides)
        self._check_last_position((shape[0] - 1) * strides[0])

    def check_frames(self, frames: ArrayLike) -> None:
        """Refuse static positions beyond those that the motion modules were made for.

        Raises:
            ValueError: naming `model.motion_form` and the last frame's position.
        """
        if isinstance(frames, np.ndarray):
            self._check_last_position(float(frames.max()))

    def _check_last_position(self, last: float) -> None:
        form, limit = self.config.motion_form, self.config.motion.num_positions
        if last > limit - 1:
            raise ValueError(
                f"model.motion_form={form!r} knows the positions 0 to {limit - 1}, "
                f"the video's last frame is at {last:g}"
            )
