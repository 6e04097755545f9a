"""Array aliases, axis letters and the one protocol that joins method and network.

Axis letters, used in comments, einsum and rearrange strings everywhere:

    b batch   f frames   h height   w width   c channels   l tokens   d width of a layer   n heads
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array
ArrayLike: TypeAlias = jax.Array | np.ndarray | float
PRNGKey: TypeAlias = jax.Array
Params: TypeAlias = Mapping[str, Any]
Cond: TypeAlias = Any
"""A condition: a pytree of arrays with leading axis b, or None."""
ParamAxes: TypeAlias = tuple[tuple[str, tuple[str | None, ...]], ...]
"""Pairs of a pattern of parameter paths (`/` between keys) and the names of a parameter's axes."""


class Predict(Protocol):
    """A network as the method sees it: a plain function of one noisy stage."""

    def __call__(
        self,
        x_t: Array,
        t: Array,
        frame_positions: Array,
        frame_stride: int,
        cond: Cond,
    ) -> Array:
        """Predict the training target of a stage.

        Args:
            x_t: noisy video, [b, f, h, w, c].
            t: network time in the published models' unit, 0 (data) to 1000 (noise), [b].
            frame_positions: position of each frame in the full-rate video, [f].
            frame_stride: this stage keeps one frame in `frame_stride` (static).
            cond: pytree with leading axis b, or None.

        Returns:
            The prediction, [b, f, h, w, c].
        """
        ...
