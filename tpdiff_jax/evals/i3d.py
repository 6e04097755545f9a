"""I3D, the network of the Frechet video distance: 400 Kinetics logits of a clip.

    stem    conv 7^3/2, pool (1,3,3)/(1,2,2), conv 1, conv 3^3, pool (1,3,3)/(1,2,2)
    mixed   3b 3c, pool 3^3/2, 4b 4c 4d 4e 4f, pool 2^3/2, 5b 5c
    head    mean over (2, 7, 7), 1x1x1 convolution to 400 classes, mean over time

Each unit is convolution, batch normalisation with the stored statistics (epsilon 1e-3) and ReLU.
Padding is TensorFlow's SAME, which depends on the size and is larger behind than in front where it
is odd; XLA's "SAME" is the same rule. The graph on TF-hub has no scale in its normalisation, other
published weights have one.

Source: Carreira and Zisserman, arXiv 1705.07750; epsilon and padding of the published graph.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tpdiff_jax.types import Array, Params

NUM_LOGITS = 400
FRAME_SIZE = 224
MIN_I3D_FRAMES = 9  # fewer leave nothing for the mean over two time steps
BATCH_NORM_EPSILON = 1e-3
LOGITS = "logits"
_POOLED = (2, 7, 7)

# Channels of a mixed unit: branch 0; 1a, 1b; 2a, 2b; 3b.
MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
STEM_UNITS = {"Conv3d_1a_7x7": (7, 64), "Conv3d_2b_1x1": (1, 64), "Conv3d_2c_3x3": (3, 192)}
_POOL_BEFORE = {  # unit -> window and stride of the max pooling in front of it
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
BRANCHES = ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")


class UnitShape(NamedTuple):
    """Kernel size along every axis, and channels, of one convolution."""

    size: int
    inputs: int
    outputs: int

    @property
    def kernel(self) -> tuple[int, int, int, int, int]:
        """[t, h, w, in, out]."""
        return (self.size, self.size, self.size, self.inputs, self.outputs)


def unit_shapes(width: float = 1.0) -> dict[str, UnitShape]:
    """Return every convolution by name: `Conv3d_1a_7x7`, `Mixed_3b/b1a`, ..., `logits`.

    Args:
        width: share of the published channels; 1 is I3D, tests take less.
    """
    return dict(_unit_shapes(lambda channels: max(1, round(channels * width))))


def _unit_shapes(scaled: Callable[[int], int]) -> Iterator[tuple[str, UnitShape]]:
    inputs = 3
    for name, (size, channels) in STEM_UNITS.items():
        yield name, UnitShape(size, inputs, scaled(channels))
        inputs = scaled(channels)
    for name, channels_of in MIXED.items():
        b0, b1a, b1b, b2a, b2b, b3b = map(scaled, channels_of)
        yield f"{name}/b0", UnitShape(1, inputs, b0)
        yield f"{name}/b1a", UnitShape(1, inputs, b1a)
        yield f"{name}/b1b", UnitShape(3, b1a, b1b)
        yield f"{name}/b2a", UnitShape(1, inputs, b2a)
        yield f"{name}/b2b", UnitShape(3, b2a, b2b)
        yield f"{name}/b3b", UnitShape(1, inputs, b3b)
        inputs = b0 + b1b + b2b + b3b
    yield LOGITS, UnitShape(1, inputs, NUM_LOGITS)


def i3d_logits(params: Mapping[str, Params], video: Array) -> Array:
    """Return the logits of clips.

    Args:
        params: name of a unit -> `kernel` [t, h, w, in, out], `mean`, `variance`, `beta` and
            perhaps `scale` [out]; `logits` has `kernel` and `bias`.
        video: [b, f, 224, 224, 3] in [-1, 1], f >= 9.

    Returns:
        Logits before the softmax, mean over time, [b, 400].

    Raises:
        ValueError: for clips of another size or fewer frames.
    """
    if video.ndim != 5 or video.shape[2:] != (FRAME_SIZE, FRAME_SIZE, 3):
        raise ValueError(f"video has shape {video.shape}; allowed: [b, f, 224, 224, 3]")
    if video.shape[1] < MIN_I3D_FRAMES:
        raise ValueError(f"video has {video.shape[1]} frames; allowed: {MIN_I3D_FRAMES} or more")
    *_, (_, features) = i3d_units(params, video)
    pooled = jax.lax.reduce_window(
        features, 0.0, jax.lax.add, (1, *_POOLED, 1), (1,) * 5, "VALID"
    ) / (_POOLED[0] * _POOLED[1] * _POOLED[2])
    head = params[LOGITS]
    logits = _convolve(pooled, head["kernel"], 1) + head["bias"]  # [b, t, 1, 1, 400]
    return jnp.mean(logits, axis=(1, 2, 3))


def i3d_units(params: Mapping[str, Params], video: Array) -> Iterator[tuple[str, Array]]:
    """Yield name and output of each convolution of the stem and each mixed unit, in order.

    Args:
        params: as in `i3d_logits`.
        video: [b, f, h, w, 3], any size.
    """
    x = video
    for name in (*STEM_UNITS, *MIXED):
        if name in _POOL_BEFORE:
            x = _max_pool(x, *_POOL_BEFORE[name])
        if name in STEM_UNITS:
            x = _unit(x, params[name], stride=2 if name == "Conv3d_1a_7x7" else 1)
        else:
            x = _mixed(x, {branch: params[f"{name}/{branch}"] for branch in BRANCHES})
        yield name, x


def _mixed(x: Array, branches: Mapping[str, Params]) -> Array:
    pooled = _max_pool(x, (3, 3, 3), (1, 1, 1))
    parts = [
        _unit(x, branches["b0"]),
        _unit(_unit(x, branches["b1a"]), branches["b1b"]),
        _unit(_unit(x, branches["b2a"]), branches["b2b"]),
        _unit(pooled, branches["b3b"]),
    ]
    return jnp.concatenate(parts, axis=-1)


def _unit(x: Array, unit: Params, stride: int = 1) -> Array:
    factor = jax.lax.rsqrt(unit["variance"] + BATCH_NORM_EPSILON)
    if "scale" in unit:
        factor = factor * unit["scale"]
    x = _convolve(x, unit["kernel"], stride)
    return jax.nn.relu((x - unit["mean"]) * factor + unit["beta"])


def _convolve(x: Array, kernel: Array, stride: int) -> Array:
    return jax.lax.conv_general_dilated(
        *(x, kernel, (stride,) * 3, "SAME"),
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision=jax.lax.Precision.HIGHEST,  # a figure must not depend on the device
    )


def _max_pool(x: Array, window: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *strides, 1), "SAME"
    )
