"""Frames to the training size: the largest centred crop of the right shape, then one resize.

Kernel: Pillow's bicubic, whose support grows with the reduction (antialiased), from the float crop
box straight to the target size; at the box's edges it sees the pixels behind them. Planes of
luma and chroma are resized in float32 as they are stored, as two products with sparse matrices of
the kernel's weights: less than half of the time that Pillow takes for floats. RGB of 8 bits is
resized as such, by Pillow.
Frechet distances depend on this kernel; its name stands in the manifest.
"""

import functools
import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

RESIZE_KERNEL = "pillow-bicubic-antialiased-centre-crop-planes"
SUPPORT = 2.0  # of the kernel, on either side, in pixels of the coarser grid

# Frames come and go by the dozen: their memory is used again instead of being mapped anew.
Image.core.set_blocks_max(4)


def crop_box(
    width: int, height: int, pixel_aspect: Fraction, out_width: int, out_height: int
) -> tuple[float, float, float, float]:
    """Largest centred box that, shown with its pixel aspect, has the target's shape.

    Args:
        width: of the frame, in stored pixels.
        height: of the frame.
        pixel_aspect: width over height of one stored pixel.
        out_width: of the target, in square pixels.
        out_height: of the target.

    Returns:
        left, upper, right, lower, in stored pixels.
    """
    shape = Fraction(out_width, out_height) / pixel_aspect  # of the box, in stored pixels
    box_width = min(Fraction(width), height * shape)
    box_height = box_width / shape
    left, upper = (width - box_width) / 2, (height - box_height) / 2
    return float(left), float(upper), float(left + box_width), float(upper + box_height)


def resize_frame(
    frame: np.ndarray, pixel_aspect: Fraction, out_height: int, out_width: int
) -> np.ndarray:
    """Crop and resize one frame.

    Args:
        frame: uint8 RGB, [h, w, 3].
        pixel_aspect: width over height of one of its pixels.
        out_height: pixels.
        out_width: pixels.

    Returns:
        uint8, [out_height, out_width, 3].
    """
    height, width = frame.shape[:2]
    box = crop_box(width, height, pixel_aspect, out_width, out_height)
    image = Image.fromarray(np.ascontiguousarray(frame))
    size = (out_width, out_height)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box))


def resize_plane(
    plane: np.ndarray, box: tuple[float, float, float, float], out_height: int, out_width: int
) -> np.ndarray:
    """Crop and resize one plane of whatever depth, without rounding.

    Args:
        plane: [h, w], of any real type.
        box: left, upper, right, lower in its pixels; may reach past the right edge by one.
        out_height: pixels.
        out_width: pixels.

    Returns:
        float32, [out_height, out_width].
    """
    left, upper, right, lower = box
    height, width = plane.shape
    columns = _kernel_weights(width, left, right, out_width)
    rows = _kernel_weights(height, upper, lower, out_height)
    seen = plane[rows.seen, columns.seen].astype(np.float32)  # only what the kernel sees
    return (columns.matrix @ np.ascontiguousarray((rows.matrix @ seen).T)).T


class _KernelWeights(NamedTuple):
    """What each pixel of the result is made of, along one axis: [out, those that are seen]."""

    seen: slice
    matrix: Any  # scipy.sparse.csr_array


@functools.lru_cache(maxsize=64)
def _kernel_weights(size: int, start: float, end: float, out_size: int) -> _KernelWeights:
    """Weights for an axis of `size` pixels of which [start, end] becomes `out_size` ones.

    Past its right end the axis goes on with its last pixel.
    """
    import scipy.sparse  # a tenth of a second, not needed before

    scale = (end - start) / out_size
    stretch = max(scale, 1.0)
    centres = start + (np.arange(out_size) + 0.5) * scale
    first = np.maximum((centres - SUPPORT * stretch + 0.5).astype(int), 0)
    behind = np.minimum((centres + SUPPORT * stretch + 0.5).astype(int), max(size, math.ceil(end)))
    pixels = first[:, None] + np.arange(np.max(behind - first))
    weights = _bicubic((pixels + 0.5 - centres[:, None]) / stretch)
    weights[pixels >= behind[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    pixels = np.minimum(pixels, size - 1)
    seen = slice(int(pixels.min()), int(pixels.max()) + 1)
    places = (np.repeat(np.arange(out_size), pixels.shape[1]), (pixels - seen.start).ravel())
    shape = (out_size, seen.stop - seen.start)
    matrix = scipy.sparse.coo_array((weights.ravel().astype(np.float32), places), shape=shape)
    matrix = matrix.tocsr()  # which adds up what falls on the same pixel
    matrix.eliminate_zeros()
    return _KernelWeights(seen, matrix)


def _bicubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -1/2; zero from `SUPPORT` on."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < SUPPORT, far, 0.0))
