"""Video files: MP4 for players, one animated GIF grid for pages and dashboards.

The frames of this project's benchmarks are 32 or 64 pixels wide, which players show as a stamp or
smear by interpolation; both writers therefore enlarge small frames by a whole factor, nearest
neighbour, so that every pixel of the sample stays a visible square.
"""

import io
import math
import os
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tpdiff_jax.files.durable import write_durably

DEFAULT_FPS = 8
_CAPTION_SIZE = 12  # pixels
_CAPTION_HEIGHT = 18
_GRID_GAP = 4
_GRID_COLOUR = 96  # mid grey: visible beside black and white frames


def to_uint8(video: np.ndarray) -> np.ndarray:
    """Maps pixels from [-1, 1] to 0..255: round(127.5 (x + 1)), clipped.

    Args:
        video: float pixels of any shape; values outside [-1, 1] are clipped, NaN becomes black.

    Returns:
        uint8 array of the same shape.
    """
    pixels = np.nan_to_num(np.asarray(video, np.float32), nan=-1.0, posinf=1.0, neginf=-1.0)
    return np.rint(127.5 * (np.clip(pixels, -1.0, 1.0) + 1.0)).astype(np.uint8)


def enlarge(video: np.ndarray, min_side: int) -> np.ndarray:
    """Repeats pixels by the smallest whole factor that brings the shorter side to `min_side`.

    Args:
        video: [..., h, w, c].
        min_side: pixels; frames that are large enough are returned unchanged.

    Returns:
        [..., h * k, w * k, c].
    """
    factor = max(1, math.ceil(min_side / min(video.shape[-3:-1])))
    return video.repeat(factor, axis=-3).repeat(factor, axis=-2)


def write_mp4(
    path: str | os.PathLike[str], video: np.ndarray, fps: float = DEFAULT_FPS, min_side: int = 256
) -> None:
    """Writes one video as H.264 in 4:2:0, which every browser and player shows.

    Args:
        path: file to write; replaced in one step, so that no reader sees half a file.
        video: uint8 [f, h, w, c] with c = 1 or 3.
        fps: frames per second.
        min_side: frames with a shorter side below this are enlarged by a whole factor.

    Raises:
        ValueError: `video` has another type or shape.
    """
    import av  # of files alone: networks are timed and planned where it is not installed

    frames = enlarge(_rgb(checked_video(video, num_axes=4)), min_side)
    if frames.shape[1] % 2 or frames.shape[2] % 2:  # 4:2:0 halves both sides
        frames = frames.repeat(2, axis=1).repeat(2, axis=2)
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1001)  # as 30000/1001 and the like
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "16", "preset": "medium"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    write_durably(path, buffer.getvalue())


def gif_grid(
    videos: np.ndarray,
    *,
    captions: Sequence[str] = (),
    fps: float = DEFAULT_FPS,
    min_side: int = 96,
    num_columns: int | None = None,
) -> bytes:
    """Encodes several videos side by side as one endless animated GIF.

    Args:
        videos: uint8 [n, f, h, w, c] with c = 1 or 3.
        captions: one line under each video, or () for none.
        fps: frames per second; GIF counts in hundredths of a second, so it is rounded to those.
        min_side: frames with a shorter side below this are enlarged by a whole factor.
        num_columns: videos in a row; None makes the grid about square.

    Returns:
        The GIF file's bytes.

    Raises:
        ValueError: `videos` has another type or shape, or the number of captions differs from n.
    """
    videos = enlarge(checked_video(videos, num_axes=5), min_side)
    if captions and len(captions) != len(videos):
        raise ValueError(f"captions: got {len(captions)} for {len(videos)} videos")
    columns = num_columns or math.ceil(math.sqrt(len(videos)))
    pages = _grid_pages(videos, columns, captions)
    buffer = io.BytesIO()
    pages[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=pages[1:],
        duration=max(20, 10 * round(100 / fps)),  # browsers slow anything below 20 ms to 100 ms
        loop=0,
        disposal=1,
    )
    return buffer.getvalue()


def write_gif_grid(
    path: str | os.PathLike[str],
    videos: np.ndarray,
    *,
    captions: Sequence[str] = (),
    fps: float = DEFAULT_FPS,
    min_side: int = 96,
    num_columns: int | None = None,
) -> None:
    """Writes `gif_grid` of the same arguments to `path`, replacing it in one step.

    Args:
        path: file to write.
        videos: uint8 [n, f, h, w, c] with c = 1 or 3.
        captions: one line under each video, or () for none.
        fps: frames per second, rounded to hundredths of a second.
        min_side: frames with a shorter side below this are enlarged by a whole factor.
        num_columns: videos in a row; None makes the grid about square.

    Raises:
        ValueError: as `gif_grid`.
    """
    encoded = gif_grid(
        videos, captions=captions, fps=fps, min_side=min_side, num_columns=num_columns
    )
    write_durably(path, encoded)


def _grid_pages(videos: np.ndarray, columns: int, captions: Sequence[str]) -> list[Image.Image]:
    """Lays the videos out row by row; one picture per frame."""
    n, f, h, w, c = videos.shape
    cell_h = h + _GRID_GAP + (_CAPTION_HEIGHT if captions else 0)
    cell_w = w + _GRID_GAP
    rows = math.ceil(n / columns)
    shape = (f, rows * cell_h + _GRID_GAP, columns * cell_w + _GRID_GAP, c)
    canvas = np.full(shape, _GRID_COLOUR, np.uint8)
    corners = [
        (_GRID_GAP + (i // columns) * cell_h, _GRID_GAP + (i % columns) * cell_w) for i in range(n)
    ]
    for video, (top, left) in zip(videos, corners, strict=True):
        canvas[:, top : top + h, left : left + w] = video
    pages = [Image.fromarray(page[..., 0] if c == 1 else page) for page in canvas]
    if captions:
        font = ImageFont.load_default(_CAPTION_SIZE)
        for page in pages:
            draw = ImageDraw.Draw(page)
            white = 255 if c == 1 else (255, 255, 255)
            for caption, (top, left) in zip(captions, corners, strict=True):
                line = _fitting(caption, w, font)
                draw.text((left + w / 2, top + h + 2), line, fill=white, font=font, anchor="ma")
    return pages


def _fitting(caption: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Cuts a caption to `width` pixels, with dots where something is missing."""
    if font.getlength(caption) <= width:
        return caption
    while caption and font.getlength(caption + "...") > width:
        caption = caption[:-1]
    return caption.rstrip() + "..."


def checked_video(video: np.ndarray, num_axes: int) -> np.ndarray:
    """Returns frames that can be written.

    Args:
        video: one video, [f, h, w, c], or several, [n, f, h, w, c].
        num_axes: 4 or 5.

    Raises:
        ValueError: another type or shape, or nothing in it.
    """
    video = np.asarray(video)
    axes = "[f, h, w, c]" if num_axes == 4 else "[n, f, h, w, c]"
    if video.dtype != np.uint8 or video.ndim != num_axes or video.shape[-1] not in (1, 3):
        raise ValueError(
            f"video: need uint8 {axes} with c = 1 or 3, got {video.dtype} {video.shape}"
        )
    if 0 in video.shape:
        raise ValueError(f"video: {axes} must not be empty, got {video.shape}")
    return video


def _rgb(video: np.ndarray) -> np.ndarray:
    return video if video.shape[-1] == 3 else video.repeat(3, axis=-1)
