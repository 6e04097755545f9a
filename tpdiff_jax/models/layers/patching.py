"""Cut frames into square patches, one token each, and put them back.

A token holds its patch in (row, column, channel) order; frames are never merged, so that a stage
with fewer frames has the same tokens per frame.
"""

import jax.numpy as jnp
import numpy as np
from einops import rearrange

from tpdiff_jax.types import Array, ArrayLike, Positions, Shape


def frames_to_patches(video: Array, patch_size: int) -> Array:
    """Cut every frame into patches.

    Args:
        video: [b, f, h, w, c]; h and w multiples of `patch_size`.
        patch_size: side of a patch, pixels.

    Returns:
        [b, f, l, patch_size^2 * c], patches in row-major order.
    """
    return rearrange(fold(video, patch_size), "b f r s p -> b f (r s) p")


def patches_to_frames(patches: Array, patch_size: int, num_rows: int) -> Array:
    """Undo `frames_to_patches`.

    Args:
        patches: [b, f, l, patch_size^2 * c].
        patch_size: side of a patch, pixels.
        num_rows: rows of patches in a frame.

    Returns:
        [b, f, h, w, c].
    """
    return unfold(rearrange(patches, "b f (r s) p -> b f r s p", r=num_rows), patch_size)


def fold(x: Array, side: int) -> Array:
    """Make squares of pixels one pixel: [b, f, h, w, c] -> [b, f, h / side, w / side, side^2 c]."""
    return rearrange(x, "b f (h p) (w q) c -> b f h w (p q c)", p=side, q=side)


def unfold(x: Array, side: int) -> Array:
    """Undo `fold`."""
    return rearrange(x, "b f h w (p q c) -> b f (h p) (w q) c", p=side, q=side)


def num_patches(shape: Shape, patch_size: int) -> int:
    """Patches of one frame of a video of this shape, (frames, height, width)."""
    return (shape[1] // patch_size) * (shape[2] // patch_size)


def patch_positions(positions: Positions, patch_size: int) -> Positions:
    """Where patches stand in the full-rate, full-size video; rows and columns count patches.

    On an axis of pixels at p_0, p_1, ..., a patch of s of them stands at

        (mean of its pixels' positions - (s - 1) / 2) / s

    which is 0, 1, 2, ... at full size: what networks without stages count. A patch of a coarse
    stage stands at the centre of the patches of full size that it covers, if its pixels are means.

    Args:
        positions: of frames [f], rows [h] and columns [w]. Numpy arrays are static: their result
            is float64; traced ones are computed in float32.
        patch_size: side s of a patch, pixels.

    Returns:
        Of frames as they were, [f]; of every patch of a frame, in row-major order, its row and its
        column, [l].
    """
    rows, columns = (
        _patch_indices(pixels, patch_size) for pixels in (positions.rows, positions.columns)
    )
    row_of, column_of = np.divmod(np.arange(len(rows) * len(columns)), len(columns))
    return Positions(positions.frames, rows[row_of], columns[column_of])


def _patch_indices(pixels: ArrayLike, patch_size: int) -> Array | np.ndarray:
    """Position of each pixel of an axis -> position of each patch, in patches."""
    if isinstance(pixels, np.ndarray):
        centres: Array | np.ndarray = pixels.astype(np.float64).reshape(-1, patch_size).mean(1)
    else:
        centres = jnp.asarray(pixels, jnp.float32).reshape(-1, patch_size).mean(1)
    return (centres - (patch_size - 1) / 2) / patch_size
