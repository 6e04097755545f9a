"""A decoded frame as the clip shows it: 8-bit RGB of BT.709, opaque, upright, cropped, resized.

    stored planes -> resized, float -> Y'CbCr to R'G'B' -> colours of other standards -> 8 bits

Planes are resized as they are stored, chroma from its own resolution, and colours are undone at
the clip's size with nothing rounded or clipped before the end. That is right to rounding for every
depth and range, which a converter's integers are not (swscale's packed RGB without full chroma
interpolation is 1.8 levels dark, full-range YUV of more than 8 bits up to 1.4 levels bright, and
limited grey is taken for full), and it is less work than to convert whole frames.

Frames in 8-bit RGB are RGB already and resized as such.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from tpdiff_jax.preparation.colour_maths import to_bt709, ycbcr_to_rgb
from tpdiff_jax.preparation.colour_tags import BT709, FULL, LIMITED, Colour, is_rgb, read_colour
from tpdiff_jax.preparation.frame_resize import crop_box, resize_frame, resize_plane

# The exact paths of the converter, which give the same bytes on every processor. It sorts planes
# and channels, fills in missing chroma, and never changes matrix or range.
CONVERSION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
PLANAR = re.compile(r"(yuvj?(?P<chroma>4\d\d)p|gray|gbrp)((9|10|12|14|16)le)?")
SUBSAMPLING = {  # luma columns and rows of one chroma sample
    "444": (1, 1), "440": (1, 2), "422": (2, 1), "420": (2, 2), "411": (4, 1), "410": (4, 4)
}  # fmt: skip
SORTED_FORMATS = {  # of frames that are stored otherwise, without and with alpha
    "yuv": ("yuv444p16le", "yuva444p16le"),
    "rgb": ("gbrp16le", "gbrap16le"),
    "grey": ("gray16le", "ya16le"),
}


class _Planes(NamedTuple):
    """Planes of code values.

    Attributes:
        arrays: Y, C_B, C_R, or R, G, B, or grey; then alpha where there is one.
        subsampling: luma columns and rows of one chroma sample.
        unit: of one code value.
    """

    arrays: list[np.ndarray]
    subsampling: tuple[int, int]
    unit: float


def make_picture(
    frame: Any,
    reformatter: VideoReformatter,
    *,
    aspect: Fraction,
    quarter_turns: int,
    size: tuple[int, int],
    is_chroma_centred: bool,
    stated_tags: Sequence[int],
) -> np.ndarray:
    """RGB as a player shows it.

    Args:
        frame: decoded, progressive.
        reformatter: kept from frame to frame, as its tables take long to make.
        aspect: width over height of a stored pixel.
        quarter_turns: anti-clockwise, that make the frame upright.
        size: height and width of the result, in square pixels.
        is_chroma_centred: whether chroma lies between the columns that share it, as in JPEG, and
            not on the first, as in MPEG.
        stated_tags: the container's, as in `read_colour`.

    Returns:
        uint8, [height, width, 3]; transparent parts are black.

    Raises:
        BadClipError: unknown_colours.
    """
    colour = read_colour(frame, stated_tags)
    height, width = size
    stored = (width, height) if quarter_turns % 2 else (height, width)
    if is_rgb(frame) and frame.format.components[0].bits <= 8 and colour.is_standard:
        picture = resize_frame(_packed_rgb(frame, reformatter), aspect, *stored)
    else:
        planes = _resized_rgb(frame, reformatter, colour, aspect, stored, is_chroma_centred)
        rgb = np.stack(planes).transpose(1, 2, 0)
        if not colour.is_standard:
            rgb = to_bt709(rgb.astype(np.float64), colour.primaries, colour.transfer)
        picture = np.rint(255 * np.clip(rgb, 0.0, 1.0)).astype(np.uint8)
    return np.rot90(picture, quarter_turns)


def _packed_rgb(frame: Any, reformatter: VideoReformatter) -> np.ndarray:
    """uint8 [h, w, 3] of a frame in 8-bit RGB or a palette, over black."""
    red, green, blue, *alpha = _sorted(frame, reformatter, ("gbrp", "gbrap")[has_alpha(frame)])
    pixels = np.stack([red, green, blue])
    for opacity in alpha:
        pixels = ((pixels * opacity.astype(np.uint16) + 127) // 255).astype(np.uint8)
    return pixels.transpose(1, 2, 0)


def _resized_rgb(
    frame: Any,
    reformatter: VideoReformatter,
    colour: Colour,
    aspect: Fraction,
    size: tuple[int, int],
    is_chroma_centred: bool,
) -> Sequence[np.ndarray]:
    """R'G'B' as stored, over black, three of float32 [h, w], nominally in [0, 1]."""
    kind = "yuv" if colour.matrix is not None else "rgb" if is_rgb(frame) else "grey"
    planes = _planes(frame, reformatter, colour, kind)
    colours = 1 if kind == "grey" else 3
    black, scale = _code_values(_depth(frame), colour.is_full_range, kind == "yuv", planes.unit)
    arrays = planes.arrays[:colours]
    if has_alpha(frame):
        alpha = planes.arrays[colours] / (planes.unit * (2 ** _depth(frame) - 1))
        alpha = np.minimum(alpha, 1.0).astype(np.float32)
        arrays = [(a - b) * alpha for a, b in zip(arrays, black, strict=False)]
        black = [0.0] * 3

    height, width = size
    box = crop_box(frame.width, frame.height, aspect, width, height)
    columns, rows = planes.subsampling
    shift = 0.0 if is_chroma_centred else 0.5 - 0.5 / columns
    left, upper, right, lower = box
    chroma_box = (left / columns + shift, upper / rows, right / columns + shift, lower / rows)
    resized = [
        (resize_plane(array, chroma_box if i else box, height, width) - black[i]) * scale[i]
        for i, array in enumerate(arrays)
    ]
    if colour.matrix is not None:
        return ycbcr_to_rgb(resized, colour.matrix)
    return resized * 3 if kind == "grey" else resized


def _code_values(
    depth: int, is_full_range: bool, is_yuv: bool, unit: float
) -> tuple[list[float], list[float]]:
    """Of each plane the code value of zero, and what one code value is worth."""
    step, highest = unit * 2.0 ** (depth - 8), unit * (2.0**depth - 1)
    black, span, chroma_span = (
        (0.0, highest, highest) if is_full_range else (16 * step, 219 * step, 224 * step)
    )
    if is_yuv:
        return [black, 128 * step, 128 * step], [1 / span, 1 / chroma_span, 1 / chroma_span]
    return [black] * 3, [1 / span] * 3


def _planes(frame: Any, reformatter: VideoReformatter, colour: Colour, kind: str) -> _Planes:
    layout = PLANAR.fullmatch(frame.format.name)
    if layout is None:
        name = SORTED_FORMATS[kind][has_alpha(frame)]
        arrays = _sorted(frame, reformatter, name, colour.is_full_range)
        # n bits become the upper bits of 16, but those of plain grey a share of 65,535.
        depth = _depth(frame)
        unit = 65535 / (2**depth - 1) if name == "gray16le" else 2.0 ** (16 - depth)
        return _Planes(arrays, (1, 1), unit)
    return _Planes(_stored_planes(frame), SUBSAMPLING[layout["chroma"] or "444"], 1.0)


def _sorted(
    frame: Any, reformatter: VideoReformatter, name: str, is_full_range: bool = True
) -> list[np.ndarray]:
    """Planes of the frame in another format of the same colours."""
    # On both sides the same, since only a difference would be converted.
    frame.colorspace, frame.color_range = BT709, FULL if is_full_range else LIMITED
    color_range = frame.color_range if name.startswith("yuv") else FULL
    return _stored_planes(
        reformatter.reformat(
            frame, format=name, interpolation=CONVERSION, dst_color_range=color_range, threads=1
        )
    )


def _stored_planes(frame: Any) -> list[np.ndarray]:
    """Views of the planes, [h, w] each; red, green and blue in this order."""
    name = frame.format.name
    dtype = np.dtype("<u2") if name.endswith("le") else np.dtype(np.uint8)
    interleaved = 2 if name == "ya16le" else 1
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)
        rows = rows[:, : interleaved * plane.width]
        planes += [rows[:, i::interleaved] for i in range(interleaved)]
    if name.startswith("gbr"):
        green, blue, red, *alpha = planes
        return [red, green, blue, *alpha]
    return planes


def _depth(frame: Any) -> int:
    return int(min(max(frame.format.components[0].bits, 8), 16))


def has_alpha(frame: Any) -> bool:
    """Whether a frame, or its palette, says how opaque each pixel is."""
    return bool(frame.format.has_palette or len(frame.format.components) in (2, 4))
