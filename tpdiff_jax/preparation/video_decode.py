"""From a video file to clips of uint8 frames, exact in presentation time.

    open -> scan the packets' timestamps -> choose frames -> seek, decode forward -> RGB -> resize

The scan reads packets without decoding them, so length, rate and damage are known from the file
itself and not from a header that may be wrong; variable frame rates need no special case. Nothing
is decoded before the caps on pixels and duration have been checked.

Reads local containers only: playlists and other formats that name further files are not tried.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.preparation.clip_buckets import choose_bucket
from tpdiff_jax.preparation.frame_resize import resize_frame
from tpdiff_jax.preparation.frame_times import clip_starts, nearest_frames

OPEN_OPTIONS = {
    # Demuxers whose files hold the video itself; a playlist could open other files and addresses.
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg",
    "protocol_whitelist": "file",
}
# A title in another encoding than UTF-8 is no reason to refuse a video; PyAV 19 needs no telling.
LENIENT_TITLES: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
# What damaged files raise: besides the library's own errors LookupError, for a stream that appears
# midway, ValueError, for a format without a way to RGB, and nonsense durations.
DECODER_ERRORS = (av.FFmpegError, LookupError, ValueError, ArithmeticError, MemoryError)
HD_HEIGHT = 720
UNSPECIFIED_COLORSPACE = 2
# The exact paths of the converter, which give the same bytes on every processor.
CONVERSION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
TRUNCATION_TOLERANCE = Fraction(1, 10)  # seconds, beside two frames: headers round durations


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipFormat:
    """What clips are cut from videos and what a video may cost, as in `PrepareSpec`."""

    buckets: tuple[Bucket, ...]
    fps: Fraction
    clips_per_video: int
    max_pixels: int
    max_seconds: float


def read_clips(path: pathlib.Path, spec: ClipFormat) -> list[np.ndarray]:
    """Cut the clips of one video.

    Args:
        path: a regular file, already known to be inside the data folder.
        spec: clips to cut and caps.

    Returns:
        One to `clips_per_video` arrays, uint8 [f, h, w, 3], in the shape of one of the buckets.

    Raises:
        BadClipError: with a reason of `bad_clips.REASONS`.
    """
    if path.stat().st_size == 0:
        raise BadClipError("empty_file")
    try:
        container = av.open(str(path), options=OPEN_OPTIONS, **LENIENT_TITLES)
    except DECODER_ERRORS as error:
        raise BadClipError("unreadable", _one_line(error)) from error
    with container:
        stream = _video_stream(container)
        # Every worker decodes one video at a time: threads would only fight over the cores.
        stream.thread_type = "NONE"
        pts = _presentation_times(container, stream, spec)
        times = [p * stream.time_base for p in pts]
        bucket, *others = spec.buckets
        if others:
            width, height = _shown_size(container, stream, pts[len(pts) // 2])
            size_and_span = {"width": width, "height": height, "span": times[-1] - times[0]}
            bucket = choose_bucket(spec.buckets, **size_and_span, fps=spec.fps)
        num_frames = bucket.num_frames
        clips = []
        for start in clip_starts(times[0], times[-1], num_frames, spec.fps, spec.clips_per_video):
            chosen = nearest_frames(times, start, num_frames, spec.fps)
            frames = _decode(container, stream, [pts[i] for i in chosen], pts[0], bucket)
            clips.append(np.stack([frames[pts[i]] for i in chosen]))
        return clips


def _video_stream(container: Any) -> Any:
    """The first stream that moves; cover art of a sound file does not."""
    if not container.streams:
        raise BadClipError("unreadable", "no stream can be found")
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise BadClipError("unreadable", "no decoder for its codec")
            return stream
    raise BadClipError("no_video_stream")


def _presentation_times(container: Any, stream: Any, spec: ClipFormat) -> list[int]:
    """Presentation times of all frames, in units of `stream.time_base`, increasing.

    Raises:
        BadClipError: too_large, too_long, no_timestamps, truncated, corrupt or unreadable.
    """
    pixels = stream.codec_context.width * stream.codec_context.height
    seen: dict[int, int] = {}  # presentation time -> duration
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:  # the end, or cut away by an edit list
                continue
            if packet.pts is None:
                raise BadClipError("no_timestamps")
            seen[packet.pts] = packet.duration or 0
            if pixels * len(seen) > spec.max_pixels:
                raise BadClipError("too_large", f"{pixels} pixels a frame, {len(seen)}+ frames")
    except DECODER_ERRORS as error:
        raise BadClipError("corrupt", _one_line(error)) from error
    if pixels == 0 or not seen:
        raise BadClipError("unreadable", "no frames")
    pts = sorted(seen)
    gaps = np.diff(pts)
    gap = int(np.median(gaps)) if len(gaps) else 0
    seconds = (pts[-1] + max(seen[pts[-1]], gap) - pts[0]) * stream.time_base
    if seconds > spec.max_seconds:
        raise BadClipError("too_long", f"{float(seconds):.1f} s")
    missing = _stated_seconds(container, stream) - seconds
    if missing > TRUNCATION_TOLERANCE + 2 * gap * stream.time_base:
        raise BadClipError("truncated", f"{float(missing):.2f} s are missing")
    return pts


def _stated_seconds(container: Any, stream: Any) -> Fraction:
    """Duration of the stream as its header says; 0 where it does not."""
    if stream.duration is not None:
        return Fraction(stream.duration) * stream.time_base
    if container.duration is not None and len(container.streams) == 1:
        # Matroska states the end of the last frame, counted from zero.
        start = container.start_time or 0
        return Fraction(container.duration - max(start, 0), av.time_base)
    return Fraction(0)


def _decode(
    container: Any, stream: Any, wanted: Sequence[int], first: int, bucket: Bucket
) -> dict[int, np.ndarray]:
    """Decode the frames shown at the times `wanted`, cropped and resized, by time.

    Raises:
        BadClipError: corrupt, size_changes, no_timestamps.
    """
    problem = "frames are missing, or the decoder had to guess parts of them"
    # From the nearest key frame. Where that fails from the very start: the container's index may
    # be wrong, and an open group of pictures builds upon frames before its key frame.
    for seek_to in dict.fromkeys((min(wanted), first)):
        try:
            frames = _decode_from(container, stream, seek_to, set(wanted), bucket)
        except DECODER_ERRORS as error:
            problem = _one_line(error)
            continue
        if len(frames) == len(set(wanted)):
            return frames
    raise BadClipError("corrupt", problem)


def _decode_from(
    container: Any, stream: Any, seek_to: int, wanted: set[int], bucket: Bucket
) -> dict[int, np.ndarray]:
    """The wanted frames up to the first that the decoder could not read in full.

    Raises:
        BadClipError: size_changes, no_timestamps.
    """
    container.seek(seek_to, stream=stream, backward=True)
    size = (stream.codec_context.width, stream.codec_context.height)
    frames: dict[int, np.ndarray] = {}
    latest = None
    for frame in container.decode(stream):
        if (frame.width, frame.height) != size:
            raise BadClipError("size_changes", f"{size} to {(frame.width, frame.height)}")
        if frame.is_corrupt:  # later frames build upon it, whether or not they are flagged
            break
        if frame.pts is None:
            continue
        if latest is not None and frame.pts <= latest:
            # Decoders hand out frames in the order in which they are shown: the times are made up,
            # as for H.264 with B-frames in AVI, which stores none.
            raise BadClipError("no_timestamps", "frames come in another order than their times")
        latest = frame.pts
        if frame.pts in wanted:
            frames[frame.pts] = _picture(frame, stream, bucket)
            if len(frames) == len(wanted):
                break
    return frames


def _shown_size(container: Any, stream: Any, near: int) -> tuple[Fraction, Fraction]:
    """Width and height as a player shows the video, in square pixels; a frame knows its rotation.

    Raises:
        BadClipError: corrupt, when there is no frame to ask.
    """
    try:
        container.seek(near, stream=stream, backward=True)
        frame = next(container.decode(stream), None)
    except DECODER_ERRORS as error:
        raise BadClipError("corrupt", _one_line(error)) from error
    if frame is None:
        raise BadClipError("corrupt", "no frame in its middle")
    aspect, quarter_turns = _orientation(frame, stream)
    if quarter_turns % 2:
        return Fraction(frame.height) * aspect, Fraction(frame.width)
    return Fraction(frame.width) * aspect, Fraction(frame.height)


def _orientation(frame: Any, stream: Any) -> tuple[Fraction, int]:
    """Aspect of a pixel once the frame is upright, and the quarter turns that make it so."""
    aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    quarter_turns = round(frame.rotation / 90) % 4
    return (1 / aspect if quarter_turns % 2 else aspect), quarter_turns


def _picture(frame: Any, stream: Any, bucket: Bucket) -> np.ndarray:
    """RGB as a player shows it: upright, square pixels, 8 bits, at the clip's size."""
    is_untagged_hd = frame.colorspace == UNSPECIFIED_COLORSPACE and frame.height >= HD_HEIGHT
    pixels = frame.reformat(
        format="rgb24",
        src_colorspace=Colorspace.ITU709 if is_untagged_hd else None,
        interpolation=CONVERSION,
        threads=1,
    ).to_ndarray()
    aspect, quarter_turns = _orientation(frame, stream)
    return resize_frame(np.rot90(pixels, quarter_turns), aspect, bucket.height, bucket.width)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error.args[1] if len(error.args) > 1 else error}"[:200]
