"""Frames to the training size: the largest centred crop of the right shape, then one resize.

Kernel: Pillow's bicubic, whose support grows with the reduction (antialiased), on uint8 RGB, from
the float crop box straight to the target size; at the box's edges it sees the pixels behind them.
Frechet distances depend on this kernel; its name
stands in the manifest.
"""

from fractions import Fraction

import numpy as np
from PIL import Image

RESIZE_KERNEL = "pillow-bicubic-antialiased-centre-crop-uint8"


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
