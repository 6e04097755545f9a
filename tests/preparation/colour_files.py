"""Videos of flat patches with known code values and colour tags, and the standards' own sums.

Nothing here is taken from the package: matrices, curves and primaries are written down anew from
ITU-R BT.601, BT.709, BT.2020, BT.2100, BT.1886 and ITU-T H.273.
"""

import pathlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.preparation.video_decode import ClipFormat, read_clips

WEIGHTS = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020": (0.2627, 0.0593)}
WEIGHTS |= {"fcc": (0.30, 0.11), "smpte240m": (0.212, 0.087)}
MATRIX_CODES = {"bt709": 1, "bt601": 6, "bt2020": 9, "fcc": 4, "smpte240m": 7}
# A grey ramp, then colours, some of them on the gamut's edge. In [0, 1].
PATCHES = np.array(
    [(v, v, v) for v in (0.0, 0.25, 0.5, 0.75, 1.0)]
    + [(0.8, 0.15, 0.15), (0.15, 0.8, 0.15), (0.15, 0.15, 0.8)]
    + [(1.0, 1.0, 0.0), (0.0, 1.0, 1.0), (0.9, 0.5, 0.2), (0.3, 0.4, 0.7)]
)


def to_codes(
    rgb: np.ndarray, matrix: str, bits: int, is_full: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Code values (rounded) of R'G'B' [n, 3], and the R'G'B' that exactly these stand for."""
    red_weight, blue_weight = WEIGHTS[matrix]
    luma = rgb @ np.array([red_weight, 1 - red_weight - blue_weight, blue_weight])
    blue = (rgb[:, 2] - luma) / (2 * (1 - blue_weight))
    red = (rgb[:, 0] - luma) / (2 * (1 - red_weight))
    step, highest = 2 ** (bits - 8), 2**bits - 1
    black, span, chroma = (0, highest, highest) if is_full else (16 * step, 219 * step, 224 * step)
    codes = np.stack([black + span * luma, *(128 * step + chroma * d for d in (blue, red))], -1)
    codes = np.clip(np.rint(codes), 0, highest)
    luma = (codes[:, 0] - black) / span
    blue, red = ((codes[:, i] - 128 * step) / chroma for i in (1, 2))
    r, b = luma + 2 * (1 - red_weight) * red, luma + 2 * (1 - blue_weight) * blue
    g = (luma - red_weight * r - blue_weight * b) / (1 - red_weight - blue_weight)
    return codes.astype(int), np.clip(np.stack([r, g, b], -1), 0, 1)


def patch_plane(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """One plane of vertical patches, all of one width."""
    return np.broadcast_to(np.repeat(values, -(-width // len(values)))[:width], (height, width))


def write_planes(
    path: pathlib.Path,
    planes: Sequence[np.ndarray],
    size: tuple[int, int],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    tags: Mapping[str, int] | None = None,
    count: int = 12,
    container_format: str | None = None,
) -> pathlib.Path:
    """Write `count` equal frames of these planes at 8 a second, without loss for lossless codecs.

    Args:
        path: of the file.
        planes: as the pixel format stores them; packed ones as [h, w, c].
        size: height and width.
        codec: encoder.
        pix_fmt: of what is encoded.
        options: of the encoder; by default x264's lossless mode.
        tags: colorspace, color_range, color_primaries, color_trc as H.273 numbers them.
        count: frames.
        container_format: where the file's name does not say it.
    """
    if options is None:
        options = {"qp": "0", "preset": "ultrafast"} if codec.startswith("libx264") else {}
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=8, options=dict(options))
        (stream.height, stream.width), stream.pix_fmt = size, pix_fmt
        for name, code in (tags or {}).items():
            setattr(stream.codec_context, name, code)
        for i in range(count):
            frame = av.VideoFrame(size[1], size[0], pix_fmt)
            for stored, values in zip(frame.planes, planes, strict=True):
                dtype = np.dtype("<u2") if pix_fmt.endswith("le") else np.dtype(np.uint8)
                rows = np.frombuffer(stored, dtype).reshape(stored.height, -1)
                flat = np.asarray(values).reshape(stored.height, -1)
                rows[:, : flat.shape[1]] = flat
            for name, code in (tags or {}).items():
                setattr(frame, name, code)
            frame.pts, frame.time_base = i, Fraction(1, 8)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_patches(
    path: pathlib.Path,
    codes: np.ndarray,
    *,
    size: tuple[int, int] = (96, 288),
    chroma: tuple[int, int] = (2, 2),
    **kwargs: Any,
) -> pathlib.Path:
    """Write vertical patches of code values [n, 3]; `chroma` are rows and columns of a sample."""
    sizes = [size] + [(-(-size[0] // chroma[0]), -(-size[1] // chroma[1]))] * 2
    planes = [patch_plane(codes[:, i], *sizes[i]) for i in range(3)]
    return write_planes(path, planes, size, **kwargs)


def read_patches(
    path: pathlib.Path, count: int, size: tuple[int, int] = (96, 288), num_frames: int = 8
) -> np.ndarray:
    """Mean colour [n, 3] of the middle of each patch of a clip of the given size."""
    spec = ClipFormat(
        buckets=(Bucket(num_frames, *size),),
        fps=Fraction(8),
        clips_per_video=1,
        max_pixels=10**9,
        max_seconds=100.0,
    )
    (clip,) = read_clips(path, spec)
    assert clip.dtype == np.uint8 and clip.shape == (num_frames, *size, 3)
    height, width = size
    found = []
    for i in range(count):
        centre = (i + 0.5) * width / count
        reach = max(width / count / 6, 0.5)
        columns = slice(int(centre - reach), max(int(centre + reach), int(centre - reach) + 1))
        patch = clip[:, height // 4 : -height // 4, columns].astype(float)
        assert np.ptp(patch, (0, 1, 2)).max() <= 1, "flat in space and time"
        found.append(patch.mean((0, 1, 2)))
    return np.array(found)
