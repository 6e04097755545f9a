"""Run a network over a frame in overlapping square tiles, to bound its memory.

    y = sum_k w_k network(x_k) / sum_k w_k

over the tiles k, with weights w_k that fall linearly towards a tile's borders. For a network whose
outputs see no farther than the overlap allows this is exact; one that takes moments or attends over
the whole frame gives something else in tiles, without seams.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.types import Array


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Square tiles of a frame.

    Attributes:
        side: rows and columns of a tile.
        overlap: rows or columns that neighbours share, at least.

    Raises:
        ValueError: unless 0 <= overlap < side.
    """

    side: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.side:
            raise ValueError(
                f"tiles.overlap must be at least 0 and below tiles.side={self.side}, "
                f"got {self.overlap}"
            )

    def starts(self, length: int) -> list[int]:
        """Where tiles start along an axis of this length; the last one ends with the axis."""
        last = length - self.side
        return [*range(0, last, self.side - self.overlap), last]


def in_tiles(apply: Callable[[Array], Array], x: Array, tiles: Tiles) -> Array:
    """Apply a network tile by tile and blend the results.

    Args:
        apply: [b, f, side, side, c] -> [b, f', side', side', d], the same factor side' / side for
            the whole frame.
        x: [b, f, h, w, c].
        tiles: in rows and columns of x; a side that exceeds the frame's is cut to it.

    Returns:
        [b, f', h', w', d].
    """
    height, width = x.shape[2:4]
    if tiles.side >= max(height, width):
        return apply(x)
    row_starts, row_side = _along(tiles, height)
    column_starts, column_side = _along(tiles, width)
    starts = np.array(list(product(row_starts, column_starts)))

    def of_tile(start: Array) -> Array:
        sizes = (*x.shape[:2], row_side, column_side, x.shape[4])
        return apply(jax.lax.dynamic_slice(x, (0, 0, start[0], start[1], 0), sizes))

    parts = jax.lax.map(of_tile, starts)  # one compiled tile, run in turn
    out_rows, out_columns = parts.shape[3:5]
    weights = np.multiply.outer(
        _ramp(out_rows, tiles.overlap * out_rows // row_side),
        _ramp(out_columns, tiles.overlap * out_columns // column_side),
    )[..., None].astype(np.float32)
    frame = (height * out_rows // row_side, width * out_columns // column_side)
    total = jnp.zeros((*parts.shape[1:3], *frame, parts.shape[-1]), parts.dtype)
    weight = np.zeros((*frame, 1), np.float32)
    for part, (row, column) in zip(parts, starts, strict=True):
        rows = slice(row * out_rows // row_side, row * out_rows // row_side + out_rows)
        first = column * out_columns // column_side
        columns = slice(first, first + out_columns)
        total = total.at[:, :, rows, columns].add(part * weights)
        weight[rows, columns] += weights
    return total / weight


def _along(tiles: Tiles, length: int) -> tuple[list[int], int]:
    """Starts of the tiles along an axis, and their side there."""
    return ([0], length) if tiles.side >= length else (tiles.starts(length), tiles.side)


def _ramp(side: int, overlap: int) -> np.ndarray:
    """Weights along a tile: 1 inside, falling linearly over the overlap, positive everywhere."""
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1
    return np.minimum(distance, overlap + 1) / (overlap + 1)
