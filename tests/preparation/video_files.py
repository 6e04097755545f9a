"""Video files from known frames: each picture shows its index, which can be read back."""

import pathlib
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

NUM_BITS = 8
MILLISECOND = Fraction(1, 1000)


def picture(index: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Upper three quarters: the index in eight stripes, highest bit left; below: red, then blue.

    The lower part says which way is up and which side is left.
    """
    frame = np.zeros((height, width, 3), np.uint8)
    low = 3 * height // 4
    for bit in range(NUM_BITS):
        left, right = width * bit // NUM_BITS, width * (bit + 1) // NUM_BITS
        frame[:low, left:right] = 235 if index >> (NUM_BITS - 1 - bit) & 1 else 20
    frame[low:, : width // 2] = (220, 30, 30)
    frame[low:, width // 2 :] = (30, 30, 220)
    return frame


def read_index(frame: np.ndarray) -> int:
    """Read the index back, wherever the picture was resized to."""
    height, width = frame.shape[:2]
    index = 0
    for bit in range(NUM_BITS):
        centre = int((bit + 0.5) * width / NUM_BITS)
        patch = frame[height // 4 : height // 2, max(centre - 1, 0) : centre + 2]
        index = 2 * index + int(patch.mean() > 128)
    return index


def is_upright(frame: np.ndarray) -> bool:
    """Whether the red and blue corners are where `picture` has them."""
    height, width = frame.shape[:2]
    left, right = frame[-height // 10, width // 8], frame[-height // 10, -width // 8]
    return bool(left[0] > 150 > left[2] and right[2] > 150 > right[0])


def write_video(
    path: pathlib.Path,
    count: int = 40,
    *,
    codec: str = "libx264",
    fps: int = 30,
    times_ms: Sequence[int] | None = None,
    size: tuple[int, int] = (64, 96),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
    aspect: Fraction | None = None,
    title: str = "",
) -> pathlib.Path:
    """Write `count` pictures at a constant rate, or at `times_ms`."""
    with av.open(
        str(path), "w", format=container_format, options=container_options or {}
    ) as container:
        if title:
            container.metadata["title"] = title
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt, stream.options = pix_fmt, options or {}
        if aspect is not None:
            stream.sample_aspect_ratio = aspect
        if times_ms is not None:
            stream.codec_context.time_base = MILLISECOND
        for i in range(count if times_ms is None else len(times_ms)):
            frame = av.VideoFrame.from_ndarray(picture(i, *size), format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = int(times_ms[i]), MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: pathlib.Path) -> pathlib.Path:
    """Write an MP4 without any picture."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        for i in range(20):
            sound = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rotate_header(path: pathlib.Path, quarter_turns: int) -> None:
    """Ask players to turn the MP4 by quarter turns clockwise."""
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter_turns % 4]
    set_matrix(path, (cosine, sine, -sine, cosine))


def set_matrix(path: pathlib.Path, turn: tuple[int, int, int, int]) -> None:
    """Write what players do with the MP4's pictures into its track header: a, b, c, d of QuickTime.

    A pixel at (x, y) is shown at (a x + c y, b x + d y), moved back into the picture.
    """
    content = bytearray(path.read_bytes())
    a, b, c, d = turn
    matrix = (a, b, 0, c, d, 0, 0, 0, 1)
    start = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of other fields
    one = (1 << 16, 1 << 16, 1 << 30) * 3  # 16.16 fixed point, the last column 2.30
    fixed = [value * unit for value, unit in zip(matrix, one, strict=True)]
    content[start : start + 36] = struct.pack(">9i", *fixed)
    path.write_bytes(content)


def write_turned(path: pathlib.Path, quarter_turns: int) -> pathlib.Path:
    """Write 40 pictures as an MP4 that stores them turned anti-clockwise and says nothing of it."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = np.rot90(picture(0), quarter_turns).shape[:2]
        for i in range(40):
            stored = np.ascontiguousarray(np.rot90(picture(i), quarter_turns))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode())
    return path


def shift_times(
    source: pathlib.Path,
    path: pathlib.Path,
    seconds: Fraction,
    options: dict[str, str] | None = None,
) -> pathlib.Path:
    """Copy an MP4 with all its frames later, by an edit list; those before zero are never shown."""
    kept = {"avoid_negative_ts": "disabled", **(options or {})}
    with av.open(str(source)) as whole, av.open(str(path), "w", options=kept) as target:
        video = whole.streams.video[0]
        stream = target.add_stream_from_template(video)
        shift = round(seconds / Fraction(video.time_base or 1))
        for packet in whole.demux(video):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = stream
                target.mux(packet)
    return path


def set_edit(path: pathlib.Path, entry: int, milliseconds: int) -> None:
    """Change how long an entry of an MP4's edit list lasts."""
    content = bytearray(path.read_bytes())
    assert struct.unpack_from(">I", content, content.index(b"mvhd") + 16) == (1000,)
    start = content.index(b"elst") + 12  # behind version, flags and the number of entries
    struct.pack_into(">I", content, start + 12 * entry, milliseconds)
    path.write_bytes(content)
