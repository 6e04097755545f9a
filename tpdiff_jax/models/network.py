"""What the trainer, the sampler and the planner ask of a network."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from tpdiff_jax.types import (
    Array,
    Cond,
    CondShapes,
    ParamAxes,
    Params,
    Positions,
    PRNGKey,
    Shape,
    Strides,
)


class Network(Protocol):
    """A network is a pair of pure functions and what is known about it without running it.

    It has no frame size: one network and one set of parameters serve clips of every shape and
    every stage of a pyramid. Shapes are (frames, height, width) of what it is given, a stage's.
    """

    @property
    def config(self) -> Any:
        """Its width and depth: the dataclass of the config group `model`."""
        ...

    @property
    def param_axes(self) -> ParamAxes:
        """Logical axes of every parameter, by path; the names are those of the mesh's rules."""
        ...

    @property
    def cond_shapes(self) -> CondShapes:
        """Shape and dtype of the encoded entries of a clip's condition that it takes."""
        ...

    def axis_sizes(self, shape: Shape) -> Mapping[str, tuple[str, int]]:
        """Lengths that the devices must divide evenly.

        Args:
            shape: frames, height and width of a stage.

        Returns:
            What it is, in words -> (logical axis, length).
        """
        ...

    def check_shape(self, shape: Shape, strides: Strides) -> None:
        """Check that the network can take a stage, before anything compiles.

        Args:
            shape: frames, height and width of the stage.
            strides: it keeps one in so many frames, rows and columns of the full video.

        Raises:
            ValueError: naming the field that does not fit, its value and what is allowed.
        """
        ...

    def init(self, key: PRNGKey) -> Params:
        """Draw fresh parameters.

        Args:
            key: of the draws.

        Returns:
            Nested dicts of float32 arrays, nothing else.
        """
        ...

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
            x_t: noisy video, [b, f, h, w, c].
            t: network time, 0 (data) to 1000 (noise), [b].
            positions: of frames [f], rows [h] and columns [w] in the full-rate, full-size video.
                Tables made from numpy arrays are static and exact; traced ones are float32.
            strides: the stage keeps one in so many frames, rows and columns (static).
            cond: pytree with leading axis b, or None.

        Returns:
            float32, [b, f, h, w, c].

        Raises:
            ValueError: when the arrays do not have the shapes that the network takes.
        """
        ...

    def flops(self, shape: Shape) -> float:
        """Count the FLOPs of one forward pass over one video, multiplications and additions.

        Args:
            shape: frames, height and width of the stage.

        Returns:
            FLOPs of matrix products and convolutions; what runs once a batch is not in it.
        """
        ...

    def num_tokens(self, shape: Shape) -> int:
        """Count the tokens of one video.

        Args:
            shape: frames, height and width of the stage.

        Returns:
            A count: patches or pixels, and tokens of text where the network computes on those too.
        """
        ...

    def null_cond(self, cond: Cond) -> Cond:
        """The unconditional twin of a condition, for dropout and classifier-free guidance.

        Args:
            cond: pytree with leading axis b, or None.

        Returns:
            The same tree, shapes and types, with what stands for no condition.
        """
        ...


def attention_axis_sizes(num_heads: int, num_patches: int) -> dict[str, tuple[str, int]]:
    """`Network.axis_sizes` of a transformer over patches: attention is divided along both.

    Args:
        num_heads: n of every attention.
        num_patches: patches of a frame of the stage.

    Returns:
        What it is, in words -> (logical axis, length).
    """
    return {
        "model.num_heads": ("heads", num_heads),
        "the number of patches of a frame": ("tokens", num_patches),
    }


def video_shape(x_t: Array, positions: Positions, channels: int) -> Shape:
    """Read the shape of a stage off a network's input.

    Args:
        x_t: noisy video, [b, f, h, w, c].
        positions: of its frames, rows and columns.
        channels: c of the network.

    Returns:
        f, h, w.

    Raises:
        ValueError: when x_t is no video of so many channels, or there are not as many positions as
            frames, rows and columns.
    """
    if x_t.ndim != 5 or x_t.shape[-1] != channels:
        raise ValueError(f"x_t must be [b, f, h, w, {channels}], got {x_t.shape}")
    shape = (x_t.shape[1], x_t.shape[2], x_t.shape[3])
    given = tuple(np.shape(axis) for axis in positions)
    if given != tuple((length,) for length in shape):
        raise ValueError(
            f"positions must be those of the video's {shape} frames, rows and columns, got "
            f"{', '.join(map(str, given))}"
        )
    return shape


def check_cond(shapes: CondShapes, cond: Cond, batch_size: int) -> None:
    """Check that a condition has the entries that a network takes.

    Args:
        shapes: of the entries by name, `Network.cond_shapes`.
        cond: what the network was given.
        batch_size: b.

    Raises:
        ValueError: naming the entries that are missing, or one of another shape.
    """
    missing = [name for name in shapes if cond is None or name not in cond]
    if missing:
        raise ValueError(f"cond must have {', '.join(shapes)}; missing {missing}")
    for name, (shape, _) in shapes.items():
        expected = (batch_size, *shape)
        if cond[name].shape != expected:
            raise ValueError(f"cond[{name!r}] must be {expected}, got {cond[name].shape}")
