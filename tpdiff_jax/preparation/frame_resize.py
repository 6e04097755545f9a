"""Frames to the training size: the largest centred crop of the right shape, then one resize.

Kernel: Pillow's bicubic, whose support grows with the reduction (antialiased), from the float crop
box straight to the target size; at the box's edges it sees the pixels behind them. Planes of
luma and chroma are resized in float32 as they are stored, RGB of 8 bits as such.
Frechet distances depend on this kernel; its name stands in the manifest.
"""

import math
from fractions import Fraction

import numpy as np
from PIL import Image

RESIZE_KERNEL = "pillow-bicubic-antialiased-centre-crop-planes"
SUPPORT = 2  # of the kernel, on either side, in pixels of the coarser grid

# Planes come and go by the dozen: their memory is used again instead of being mapped anew.
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
    # Only what the kernel sees is converted.
    reach_x = SUPPORT * max((right - left) / out_width, 1.0) + 1
    reach_y = SUPPORT * max((lower - upper) / out_height, 1.0) + 1
    x, y = max(math.floor(left - reach_x), 0), max(math.floor(upper - reach_y), 0)
    seen = plane[y : math.ceil(lower + reach_y), x : math.ceil(right + reach_x)]
    seen = seen.astype(np.float32)
    if right > width:
        seen = np.pad(seen, ((0, 0), (0, 1)), mode="edge")
    here = (left - x, upper - y, right - x, min(lower, height) - y)
    image = Image.fromarray(seen)
    return np.asarray(image.resize((out_width, out_height), Image.Resampling.BICUBIC, box=here))
