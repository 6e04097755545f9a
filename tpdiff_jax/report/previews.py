"""Animated grids as pages hold them: a third of the GIF's size, and still for who asks for that.

A GIF of the same frames takes as much room as the rest of a page and always moves. WebP takes a
fraction of it; the still picture is for readers whose system asks for less motion.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageSequence

_CODINGS = ({"lossless": True}, {"quality": 80})  # the first is smaller for enlarged pixels
_EFFORT = 2  # of 6: a second for a large grid, a few per cent more bytes
_STILL_COLOURS = 16
_FRAME_MILLISECONDS = 125
# What Pillow raises for files that are cut short or damaged, each seen.
_BROKEN = (OSError, ValueError, EOFError, SyntaxError, IndexError, Image.DecompressionBombError)


class Preview(NamedTuple):
    """An animated picture for a page.

    Attributes:
        moving: address that holds the animated WebP.
        still: address that holds its first frame as GIF.
        width: in pixels.
        height: in pixels.
        num_bytes: of both pictures.
    """

    moving: str
    still: str
    width: int
    height: int
    num_bytes: int


def grid_preview(path: Path) -> Preview | None:
    """Return an animated GIF as a page shows it.

    Args:
        path: the file.

    Returns:
        The preview, or None for a file that is no whole picture or too large for WebP (16383
        pixels a side).
    """
    buffer = io.BytesIO()
    try:
        with Image.open(path, formats=["GIF"]) as picture:
            width, height = picture.size
            frames, milliseconds = [], []
            for frame in ImageSequence.Iterator(picture):
                frames.append(frame.convert("RGB"))
                milliseconds.append(frame.info.get("duration", _FRAME_MILLISECONDS))
        frames[0].quantize(_STILL_COLOURS, dither=Image.Dither.NONE).save(buffer, "GIF")
        moving = min((_webp(frames, milliseconds, **coding) for coding in _CODINGS), key=len)
    except _BROKEN:
        return None
    return Preview(
        moving=data_uri("image/webp", moving),
        still=data_uri("image/gif", buffer.getvalue()),
        width=width,
        height=height,
        num_bytes=len(moving) + len(buffer.getvalue()),
    )


def _webp(frames: Sequence[Image.Image], milliseconds: Sequence[int], **coding: Any) -> bytes:
    """An endless animation; each frame lasts as long as in the GIF, which merges equal ones."""
    buffer, (first, *rest) = io.BytesIO(), frames
    options = {"duration": list(milliseconds), "loop": 0, "method": _EFFORT, **coding}
    first.save(buffer, "WEBP", save_all=True, append_images=rest, **options)
    return buffer.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    """Return an address that holds its content.

    Args:
        kind: media type, such as video/mp4.
        content: the file's bytes.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
