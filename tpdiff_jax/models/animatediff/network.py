"""AnimateDiff: Stable Diffusion's U-Net on every frame, with motion modules that join the frames.

    down: layers, downsampling, layers, ...   middle   up: layers, upsampling, layers, ...

Whatever a layer or a downsampling gives on the way down skips to a layer on the way up. Motion
modules embed the position of a frame in the full-rate video, so a frame kept by several stages of
the pyramid looks the same to all of them, and the stride itself needs no embedding. Nothing embeds
rows and columns: a coarse stage is to it a video of small frames. Group norms see
one frame at a time; with `motion_norm="all_frames"`, which is diffusers' form, those of the motion
modules see all frames, and their statistics then depend on how many a stage has.

Source: Guo et al., AnimateDiff, arXiv 2307.04725, and Rombach et al., arXiv 2112.10752; diffusers'
UNetMotionModel, with which the tests compare.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.models.animatediff import flops as cost
from tpdiff_jax.models.animatediff.axes import ANIMATEDIFF_PARAM_AXES
from tpdiff_jax.models.animatediff.config import AnimateDiffConfig, LayerShape, unet_shape
from tpdiff_jax.models.animatediff.layers import (
    AnimateDiffHead,
    AnimateDiffStem,
    Context,
    Downsample,
    Layer,
    MiddleEnd,
    Upsample,
)
from tpdiff_jax.models.layers.attention_kernels import check_kernel
from tpdiff_jax.models.layers.block_stack import REMAT_POLICIES, bind, new_params
from tpdiff_jax.models.layers.config_checks import check_sides
from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.models.network import video_shape
from tpdiff_jax.types import (
    Array,
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


class Kind(NamedTuple):
    """A kind of step: its module, its FLOPs, and its end of a skip connection.

    Attributes:
        part: the module; its constructor takes a `LayerShape`.
        flops: FLOPs for one video, of a layer's shape and the video's.
        gives_skip: whether a step on the way up sees what it gives.
        takes_skip: whether it sees the last of these beside its input.
    """

    part: Callable[..., Any]
    flops: Callable[[LayerShape, Shape], float]
    gives_skip: bool = False
    takes_skip: bool = False


DOWN = Kind(Layer, cost.layer_flops, gives_skip=True)
DOWNSAMPLE = Kind(Downsample, cost.downsample_flops, gives_skip=True)
MIDDLE = Kind(Layer, cost.layer_flops)
MIDDLE_END = Kind(MiddleEnd, cost.middle_end_flops)
UP = Kind(Layer, cost.layer_flops, takes_skip=True)
UPSAMPLE = Kind(Upsample, cost.upsample_flops)


class Step(NamedTuple):
    """One step of the U-Net; its parameters lie under `section` and `name`."""

    section: str
    name: str
    kind: Kind
    shape: LayerShape


@functools.cache
def unet_steps(config: AnimateDiffConfig) -> tuple[Step, ...]:
    """Return the steps between stem and head, in the order in which they run."""
    shape = unet_shape(config)
    return (
        *_steps_of_levels("down", shape.down, DOWN, "downsample", DOWNSAMPLE),
        Step("middle", "layer", MIDDLE, shape.middle),
        Step("middle", "end", MIDDLE_END, shape.middle),
        *_steps_of_levels("up", shape.up, UP, "upsample", UPSAMPLE),
    )


# Traced once for all steps of the same shape, and apart from the rest: flax's random streams take
# time in proportion to the program around them.
_new_params = jax.jit(new_params, static_argnums=(0, 1))


def _steps_of_levels(
    section: str,
    levels: tuple[tuple[LayerShape, ...], ...],
    layer: Kind,
    resampling: str,
    resample: Kind,
) -> Iterator[Step]:
    for i, layers in enumerate(levels):
        for j, shape in enumerate(layers):
            yield Step(section, f"{i}_layer_{j}", layer, shape)
        if i < len(levels) - 1:
            yield Step(section, f"{i}_{resampling}", resample, layers[-1])


@dataclass(frozen=True)
class AnimateDiff:
    """The network as pure functions of {"stem", "down", "middle", "up", "head"}.

    Raises:
        ValueError: when `model.attention_kernel` cannot run on the layout's devices.
    """

    config: AnimateDiffConfig
    layout: Layout = ONE_DEVICE

    def __post_init__(self) -> None:
        check_kernel(self.config.attention_kernel, self.layout.platform, self.config.dtype)

    @property
    def param_axes(self) -> ParamAxes:
        """Logical axes of every parameter, by path."""
        return ANIMATEDIFF_PARAM_AXES

    @property
    def cond_shapes(self) -> CondShapes:
        """Embedded prompts."""
        config = self.config
        return {"text": ((config.num_text_tokens, config.text_dim), np.dtype(np.float16))}

    def axis_sizes(self, shape: Shape) -> Mapping[str, tuple[str, int]]:
        """Heads and the pixels of a frame at the last level: attention is divided along them."""
        coarsest = cost.num_pixels(shape, self.config.num_levels - 1)
        return {
            "model.num_heads": ("heads", self.config.num_heads),
            "the number of pixels of a frame at the last level": ("tokens", coarsest),
        }

    def check_shape(self, shape: Shape, strides: Strides) -> None:
        """Check that every level can halve the frames and every frame has a position.

        Args:
            shape: frames, height and width of a stage.
            strides: of the stage.

        Raises:
            ValueError: naming `model.level_channels` when a side is no multiple of the factor by
                which they halve it, or `model.motion_form` when the video is too long for it.
        """
        config = self.config
        check_sides(shape, strides, config.factor, "level_channels", config.level_channels)
        self._check_last_position((shape[0] - 1) * strides[0])

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32; the output of a fresh network is zero."""
        config, steps = self.config, unet_steps(self.config)
        key_stem, key_head, *keys = jax.random.split(key, 2 + len(steps))
        params: dict[str, Any] = {"stem": new_params(AnimateDiffStem, config, key_stem)}
        for step, step_key in zip(steps, keys, strict=True):
            section = params.setdefault(step.section, {})
            section[step.name] = _new_params(step.kind.part, step.shape, step_key)
        return params | {"head": new_params(AnimateDiffHead, config, key_head)}

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
                those of the frames are embedded.
            strides: of the stage (static), to know the last frame's position.
            cond: {"text": [b, m, d_text]}; other entries are not looked at.

        Returns:
            float32, [b, f, h, w, c].

        Raises:
            ValueError: if frames or condition do not have the shapes of the config, the levels
                cannot halve the frames, the positions are not as many as frames, rows and columns,
                or the video has more frames than the motion modules have positions.
        """
        config = self.config
        self.check_shape(video_shape(x_t, positions, config.channels), strides)
        if isinstance(positions.frames, np.ndarray):
            self._check_last_position(float(positions.frames.max()))
        self._check_cond(cond, x_t.shape[0])
        stem, head = (
            bind(AnimateDiffStem, config, params["stem"]),
            bind(AnimateDiffHead, config, params["head"]),
        )
        text = cond["text"].astype(config.dtype)
        context = Context(stem.embed_time(t), text, positions.frames)
        x = self.layout.constrain(stem.conv(x_t), "batch")
        skips = [x]
        for step in unet_steps(config):
            if step.kind.takes_skip:
                x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = self._run(step, params[step.section][step.name], x, context)
            if step.kind.gives_skip:
                skips.append(x)
        return head(x)

    def flops(self, shape: Shape) -> float:
        """FLOPs of products and convolutions of a forward pass, for (frames, height, width)."""
        steps = sum(step.kind.flops(step.shape, shape) for step in unet_steps(self.config))
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

    def _run(self, step: Step, params: Params, x: Array, context: Context) -> Array:
        def run(params: Params, x: Array, context: Context) -> Array:
            y = bind(step.kind.part, step.shape, params)(x, context, self.layout)
            return self.layout.constrain(y, "batch")

        if self.config.remat != "none":
            run = jax.checkpoint(run, policy=REMAT_POLICIES[self.config.remat])
        return run(params, x, context)

    def _check_last_position(self, last: float) -> None:
        form, limit = self.config.motion_form, self.config.motion.num_positions
        if last > limit - 1:
            raise ValueError(
                f"model.motion_form={form!r} knows the positions 0 to {limit - 1}, "
                f"the video's last frame is at {last:g}"
            )

    def _check_cond(self, cond: Cond, batch_size: int) -> None:
        if cond is None or "text" not in cond:
            raise ValueError("cond must have 'text'")
        expected = (batch_size, *self.cond_shapes["text"][0])
        if cond["text"].shape != expected:
            raise ValueError(f"cond['text'] must be {expected}, got {cond['text'].shape}")
