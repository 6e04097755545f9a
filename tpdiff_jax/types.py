"""Array aliases, axis letters and the one protocol that joins method and network.

Axis letters, used in comments, einsum and rearrange strings everywhere:

    b batch   f frames   h height   w width   c channels   l tokens   d width of a layer   n heads
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = jax.Array
ArrayLike: TypeAlias = jax.Array | np.ndarray | float
FloatArray: TypeAlias = NDArray[np.floating[Any]]
PRNGKey: TypeAlias = jax.Array
Params: TypeAlias = Mapping[str, Any]
Shape: TypeAlias = tuple[int, int, int]  # frames, height, width of a video or stage
Strides: TypeAlias = tuple[int, int, int]  # over time, height, width
Cond: TypeAlias = Any
"""A condition: a pytree of arrays with leading axis b, or None."""
CondShapes: TypeAlias = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Shape, without the axis b, and dtype of entries of a condition, by name."""
ParamAxes: TypeAlias = tuple[tuple[str, tuple[str | None, ...]], ...]
"""Pairs of a pattern of parameter paths (`/` between keys) and the names of a parameter's axes."""


Axes: TypeAlias = tuple[str | None, ...]
"""Names of an array's leading axes; None: one that is not divided over devices."""


class Layout(Protocol):
    """How a network's arrays lie on the devices, by the names of their axes.

    A network names what its axes mean (batch, tokens, heads); which devices share them out is not
    its business.
    """

    @property
    def platform(self) -> str:
        """Kind of device: cpu, gpu or tpu."""
        ...

    def constrain(self, x: Array, *axes: str | None) -> Array:
        """Divide an array along named axes.

        Args:
            x: an array of any shape.
            axes: names of its leading axes; None: not divided along this one.

        Returns:
            x, so divided.
        """
        ...

    def over_shards(
        self,
        function: Callable[..., tuple[Array, ...]],
        in_axes: Sequence[Axes],
        out_axes: Sequence[Axes],
    ) -> Callable[..., tuple[Array, ...]]:
        """Return a function that runs on each device's own part of the arguments.

        Args:
            function: takes one array for each entry of `in_axes`, returns one for each of
                `out_axes`.
            in_axes: names of each argument's axes.
            out_axes: names of each result's axes; along others all devices compute the same.

        Returns:
            A function of whole arrays.
        """
        ...

    def gather(self, x: Array, name: str, dim: int) -> Array:
        """Inside `over_shards`: collect a dimension from all parts of an axis.

        Args:
            x: a device's own part.
            name: logical axis that `dim` is divided along.
            dim: dimension of x.

        Returns:
            The array with `dim` in full.
        """
        ...

    def gather_layer(self, table: ParamAxes, path: str) -> Callable[[Params], Params] | None:
        """Return what makes one layer's parameters whole along their width.

        Args:
            table: axes of the network's parameters.
            path: of the stack that the layer is one of.

        Returns:
            A function of the layer's parameters; None where they are whole.
        """
        ...


class Positions(NamedTuple):
    """Where a stage's frames, rows and columns stand in the full-rate, full-size video."""

    frames: ArrayLike  # [f]
    rows: ArrayLike  # [h]
    columns: ArrayLike  # [w]


class Predict(Protocol):
    """A network as the method sees it: a plain function of one noisy stage."""

    def __call__(
        self,
        x_t: Array,
        t: Array,
        positions: Positions,
        strides: Strides,
        cond: Cond,
    ) -> Array:
        """Predict the training target of a stage.

        Args:
            x_t: noisy video, [b, f, h, w, c].
            t: network time in the published models' unit, 0 (data) to 1000 (noise), [b].
            positions: of each frame, row and column in the full-rate, full-size video.
            strides: this stage keeps one in so many frames, rows and columns (static).
            cond: pytree with leading axis b, or None.

        Returns:
            The prediction, [b, f, h, w, c].
        """
        ...
