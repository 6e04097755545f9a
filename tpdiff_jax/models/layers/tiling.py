"""Run a network over a frame in overlapping square tiles, to bound its memory.

    y = sum_k w_k network(x_k) / sum_k w_k

over the tiles k, with weights w_k that fall linearly towards a tile's borders. For a network whose
outputs see no farther than the overlap allows this is exact; one that takes moments or attends over
the whole frame gives something else in tiles, without seams.

`in_blended_tiles` lays and joins tiles as diffusers' autoencoders do: they start at multiples of
side - overlap, the last ones are cut at the frame's end, and each fades in over what its neighbours
above and on the left, themselves so blended, give for the overlap.
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


def in_blended_tiles(apply: Callable[[Array], Array], x: Array, tiles: Tiles) -> Array:
    """Apply a network tile by tile and blend the results as diffusers does.

    Args:
        apply: [b, f, h, w, c] -> [b, f', h', w', d], the same factors h' / h and w' / w for tiles
            of every size.
        x: [b, f, h, w, c].
        tiles: in rows and columns of x; one that exceeds the frame is the frame.

    Returns:
        [b, f', h', w', d].

    Source: diffusers 0.42, `AutoencoderKLWan.tiled_encode` and `tiled_decode`.
    """
    height, width = x.shape[2:4]
    if tiles.side >= max(height, width):
        return apply(x)
    step = tiles.side - tiles.overlap
    rows, columns = range(0, height, step), range(0, width, step)
    of_size: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, column in product(rows, columns):
        size = min(tiles.side, height - row), min(tiles.side, width - column)
        of_size.setdefault(size, []).append((row, column))
    parts: dict[tuple[int, int], Array] = {}
    for size, starts in of_size.items():  # one compiled tile of each size, run in turn

        def of_tile(start: Array, size: tuple[int, int] = size) -> Array:
            sizes = (*x.shape[:2], *size, x.shape[4])
            return apply(jax.lax.dynamic_slice(x, (0, 0, start[0], start[1], 0), sizes))

        parts |= zip(starts, jax.lax.map(of_tile, np.array(starts)), strict=True)
    scale = parts[0, 0].shape[2] / min(tiles.side, height)
    out_step, overlap = round(step * scale), round(tiles.overlap * scale)
    for row, column in product(rows, columns):
        if row:
            above = parts[row - step, column]
            parts[row, column] = _fade_in(above, parts[row, column], overlap, axis=2)
        if column:
            left = parts[row, column - step]
            parts[row, column] = _fade_in(left, parts[row, column], overlap, axis=3)
    lines = [
        jnp.concatenate([parts[row, column][:, :, :out_step, :out_step] for column in columns], 3)
        for row in rows
    ]
    return jnp.concatenate(lines, axis=2)


def _fade_in(before: Array, tile: Array, overlap: int, axis: int) -> Array:
    """Mix the start of a tile with the end of the one before it, linearly from the latter."""
    overlap = min(overlap, before.shape[axis], tile.shape[axis])
    old = jax.lax.slice_in_dim(before, before.shape[axis] - overlap, None, axis=axis)
    new = jax.lax.slice_in_dim(tile, 0, overlap, axis=axis)
    weight = (np.arange(overlap, dtype=np.float32) / max(overlap, 1)).reshape(
        [-1 if i == axis else 1 for i in range(tile.ndim)]
    )
    rest = jax.lax.slice_in_dim(tile, overlap, None, axis=axis)
    return jnp.concatenate([old * (1.0 - weight) + new * weight, rest], axis=axis)


def _along(tiles: Tiles, length: int) -> tuple[list[int], int]:
    """Starts of the tiles along an axis, and their side there."""
    return ([0], length) if tiles.side >= length else (tiles.starts(length), tiles.side)


def _ramp(side: int, overlap: int) -> np.ndarray:
    """Weights along a tile: 1 inside, falling linearly over the overlap, positive everywhere."""
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1
    return np.minimum(distance, overlap + 1) / (overlap + 1)
