"""A latent-diffusion U-Net on every frame of a video, with layers that join the frames.

    down: layers, downsampling, layers, ...   middle   up: layers, upsampling, layers, ...

Whatever a layer or a downsampling gives on the way down skips to a layer on the way up. Nothing
embeds rows and columns: a coarse stage is to it a video of small frames.

Source: Rombach et al., arXiv 2112.10752, section 3.3.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.models.layers.attention_kernels import check_kernel
from tpdiff_jax.models.layers.block_stack import REMAT_POLICIES, bind, new_params
from tpdiff_jax.models.layers.config_checks import check_sides
from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.models.network import video_shape
from tpdiff_jax.models.unet import flops as cost
from tpdiff_jax.models.unet.axes import UNET_PARAM_AXES
from tpdiff_jax.models.unet.config import UNetConfig
from tpdiff_jax.models.unet.layers import Context, UNetHead, UNetStem
from tpdiff_jax.models.unet.steps import Step
from tpdiff_jax.types import (
    Array,
    ArrayLike,
    Cond,
    CondShapes,
    Layout,
    ParamAxes,
    Params,
    Positions,
    PRNGKey,
    Shape,
    Strides,
)

# Traced once for all steps of the same shape, and apart from the rest: flax's random streams take
# time in proportion to the program around them.
_new_params = jax.jit(new_params, static_argnums=(0, 1))


@dataclass(frozen=True)
class UNet(abc.ABC):
    """The network as pure functions of {"stem", "down", "middle", "up", "head"}.

    A network is a class below it that names its steps.

    Raises:
        ValueError: when `model.attention_kernel` cannot run on the layout's devices.
    """

    config: UNetConfig
    layout: Layout = ONE_DEVICE

    def __post_init__(self) -> None:
        check_kernel(self.config.attention_kernel, self.layout.platform, self.config.dtype)

    @property
    @abc.abstractmethod
    def steps(self) -> tuple[Step, ...]:
        """What runs between stem and head, in this order."""

    @abc.abstractmethod
    def axis_sizes(self, shape: Shape) -> Mapping[str, tuple[str, int]]:
        """Lengths that the devices must divide evenly, for a stage's frames, height and width."""

    def check_frames(self, frames: ArrayLike) -> None:
        """Refuse positions of frames that the network has no place for; here it takes all."""
        del frames

    @property
    def param_axes(self) -> ParamAxes:
        """Logical axes of every parameter, by path."""
        return UNET_PARAM_AXES

    @property
    def cond_shapes(self) -> CondShapes:
        """Embedded prompts."""
        config = self.config
        return {"text": ((config.num_text_tokens, config.text_dim), np.dtype(np.float16))}

    def check_shape(self, shape: Shape, strides: Strides) -> None:
        """Check that every level can halve the frames.

        Args:
            shape: frames, height and width of a stage.
            strides: of the stage.

        Raises:
            ValueError: naming `model.level_channels` when a side is no multiple of the factor by
                which they halve it.
        """
        config = self.config
        check_sides(shape, strides, config.factor, "level_channels", config.level_channels)

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32; the output of a fresh network is zero."""
        config = self.config
        key_stem, key_head, *keys = jax.random.split(key, 2 + len(self.steps))
        params: dict[str, Any] = {"stem": new_params(UNetStem, config, key_stem)}
        for step, step_key in zip(self.steps, keys, strict=True):
            section = params.setdefault(step.section, {})
            section[step.name] = _new_params(step.kind.part, step.shape, step_key)
        return params | {"head": new_params(UNetHead, config, key_head)}

    def apply(
        self,
        params: Params,
        x_t: Array,
        t: Array,
        positions: Positions,
        strides: Strides,
        cond: Cond,
    ) -> Array:
        """Predict the training target of a stage.

        Args:
            params: what `init` returns, or a tree of the same shapes.
            x_t: noisy latents, [b, f, h, w, c].
            t: network time, 0 to 1000, [b].
            positions: of frames [f], rows [h] and columns [w] in the full-rate, full-size video;
                those of the frames are for layers that embed them.
            strides: of the stage (static), to check it.
            cond: {"text": [b, m, d_text]}; other entries are not looked at.

        Returns:
            float32, [b, f, h, w, c].

        Raises:
            ValueError: if frames or condition do not have the shapes of the config, the levels
                cannot halve the frames, the positions are not as many as frames, rows and columns,
                or the network does not take the stage's frames.
        """
        config = self.config
        self.check_shape(video_shape(x_t, positions, config.channels), strides)
        self.check_frames(positions.frames)
        self._check_cond(cond, x_t.shape[0])
        stem, head = (
            bind(UNetStem, config, params["stem"]),
            bind(UNetHead, config, params["head"]),
        )
        text = cond["text"].astype(config.dtype)
        context = Context(stem.embed_time(t), text, positions.frames)
        x = self.layout.constrain(stem.conv(x_t), "batch")
        # An entrance gives the first skip itself.
        skips = [] if self.steps[0].section == "entrance" else [x]
        for step in self.steps:
            if step.takes_skip:
                x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = self._run(step, params[step.section][step.name], x, context)
            if step.gives_skip:
                skips.append(x)
        return head(x)

    def flops(self, shape: Shape) -> float:
        """FLOPs of products and convolutions of a forward pass, for (frames, height, width)."""
        steps = sum(step.kind.flops(step.shape, shape) for step in self.steps)
        return cost.stem_flops(self.config, shape) + steps + cost.head_flops(self.config, shape)

    def num_tokens(self, shape: Shape) -> int:
        """Pixels of one video of (frames, height, width), at the first level."""
        return shape[0] * cost.num_pixels(shape, 0)

    def null_cond(self, cond: Cond) -> Cond:
        """Text of zeros.

        Published weights know the encoded empty prompt instead, which the data set brings
        (`experiment/null_condition.py`). None stays None.
        """
        return None if cond is None else {**cond, "text": jnp.zeros_like(cond["text"])}

    def coarsest_pixels(self, shape: Shape) -> dict[str, tuple[str, int]]:
        """The pixels of a frame at the last level, an entry of `axis_sizes`."""
        coarsest = cost.num_pixels(shape, self.config.num_levels - 1)
        return {"the number of pixels of a frame at the last level": ("tokens", coarsest)}

    def _run(self, step: Step, params: Params, x: Array, context: Context) -> Array:
        def run(params: Params, x: Array, context: Context) -> Array:
            y = bind(step.kind.part, step.shape, params)(x, context, self.layout)
            return self.layout.constrain(y, "batch")

        if self.config.remat != "none":
            run = jax.checkpoint(run, policy=REMAT_POLICIES[self.config.remat])
        return run(params, x, context)

    def _check_cond(self, cond: Cond, batch_size: int) -> None:
        if cond is None or "text" not in cond:
            raise ValueError("cond must have 'text'")
        expected = (batch_size, *self.cond_shapes["text"][0])
        if cond["text"].shape != expected:
            raise ValueError(f"cond['text'] must be {expected}, got {cond['text'].shape}")
