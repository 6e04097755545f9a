"""From a video file to clips of uint8 frames, exact in presentation time.

    open, read the packets' times (video_file) -> choose frames (frame_times) -> seek, decode
    forward -> one picture of two fields (deinterlace) -> RGB, resized (frame_picture)

Nothing is decoded before the caps on pixels and duration have been checked. Seeking is only the
first way to a frame: where it fails or leads past it, decoding starts earlier, and in the end from
the beginning of the file.
"""

import dataclasses
import math
import pathlib
import struct
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.preparation.clip_buckets import choose_bucket
from tpdiff_jax.preparation.deinterlace import deinterlace
from tpdiff_jax.preparation.frame_picture import make_picture
from tpdiff_jax.preparation.frame_times import clip_starts, nearest_frames
from tpdiff_jax.preparation.video_file import (
    DECODER_ERRORS,
    MATROSKA,
    MOV,
    VideoFile,
    one_line,
    open_video,
)

# H.264 says of a packet whether others build upon it, and these containers whose it is: what
# nobody needs is not decoded. HEVC means only packets of the same temporal layer.
SKIPPING_CODECS = ("h264",)
SKIPPING_CONTAINERS = (MOV, MATROSKA)
# Of these chroma lies between the columns that share it, of others on the first.
CENTRED_CHROMA_CODECS = ("mjpeg", "mpeg1video", "h263", "flv1")
FIELD_CODECS = ("hevc", "vvc")  # whose interlaced pictures hold one field each
NEVER, FLAGGED, ALL = "never", "flagged", "all"  # which frames to deinterlace


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
    with open_video(path, spec.max_pixels, spec.max_seconds) as video:
        pts, times = video.pts, video.times
        bucket, *others = spec.buckets
        if others:
            width, height = _shown_size(video)
            size_and_span = {"width": width, "height": height, "span": times[-1] - times[0]}
            bucket = choose_bucket(spec.buckets, **size_and_span, fps=spec.fps)
        clips = []
        for chosen in _frames_of_clips(times, bucket, spec):
            frames = _decode(video, [pts[i] for i in chosen], bucket)
            clips.append(np.stack([frames[pts[i]] for i in chosen]))
        return clips


def _frames_of_clips(
    times: Sequence[Fraction], bucket: Bucket, spec: ClipFormat
) -> list[list[int]]:
    """Indices of the frames of each clip; one that would show a still passage is left out.

    Raises:
        BadClipError: too_short; rate_too_low, when no clip is left.
    """
    chosen, problems = [], []
    per_clip = bucket.num_frames, spec.fps
    for start in clip_starts(times[0], times[-1], *per_clip, spec.clips_per_video):
        try:
            chosen.append(nearest_frames(times, start, *per_clip))
        except BadClipError as bad:
            problems.append(bad)
    if not chosen:
        raise problems[0]
    return chosen


class _InterlacedError(Exception):
    """A frame says that it is interlaced, which was not expected."""


def _decode(video: VideoFile, wanted: Sequence[int], bucket: Bucket) -> dict[int, np.ndarray]:
    """Decode the frames shown at the times `wanted`, cropped and resized, by time.

    Raises:
        BadClipError: corrupt, size_changes, no_timestamps, interlaced_fields, unknown_colours.
    """
    # Frames say themselves that they are interlaced; only where none does, the container is asked.
    expected = ALL if video.stated_field else NEVER
    try:
        return _try_all_ways(video, set(wanted), bucket, expected)
    except _InterlacedError:
        if video.stream.codec_context.name in FIELD_CODECS:
            raise BadClipError("interlaced_fields") from None
        return _try_all_ways(video, set(wanted), bucket, FLAGGED)


def _try_all_ways(
    video: VideoFile, wanted: set[int], bucket: Bucket, interlaced: str
) -> dict[int, np.ndarray]:
    """The wanted frames, by the first way that gives them all."""
    problem = "frames are missing, or the decoder had to guess parts of them"
    first = video.pts.index(min(wanted))
    if interlaced != NEVER:  # to deinterlace takes the frame before
        first = max(first - 1, 0)
    for start in video.ways_to(video.pts[first]):
        try:
            video.seek(start)
            frames = dict(_pictures(video, wanted, bucket, interlaced))
        except DECODER_ERRORS as error:
            problem = one_line(error)
            continue
        if len(frames) == len(wanted):
            return frames
    raise BadClipError("corrupt", problem)


def _pictures(
    video: VideoFile, wanted: set[int], bucket: Bucket, interlaced: str
) -> Iterator[tuple[int, np.ndarray]]:
    """The wanted frames up to the first that this way does not lead to."""
    reformatter = VideoReformatter()
    forced = video.stated_field if interlaced == ALL else ""
    left = len(wanted)
    neighbours = interlaced != NEVER
    for before, frame, after in _with_neighbours(_frames(video, wanted, interlaced), neighbours):
        if frame.pts not in wanted:
            continue
        time, quarter_turns = frame.pts, _quarter_turns(frame)
        if forced or (interlaced == FLAGGED and frame.interlaced_frame):
            if before is None and time != video.pts[0]:
                return
            around = [f for f in (before, frame, after) if f is not None]
            frame = deinterlace(around, around.index(frame), forced)
        yield (
            time,
            make_picture(
                frame,
                reformatter,
                aspect=_pixel_aspect(video.stream),
                quarter_turns=quarter_turns,
                size=(bucket.height, bucket.width),
                is_chroma_centred=video.stream.codec_context.name in CENTRED_CHROMA_CODECS,
                stated_tags=video.stated_tags,
            ),
        )
        left -= 1
        if not left:
            return


def _with_neighbours(
    frames: Iterator[Any], is_needed: bool
) -> Iterator[tuple[Any | None, Any, Any | None]]:
    """Each frame with the one before and after it, or with None where nobody looks at them."""
    if not is_needed:
        yield from ((None, frame, None) for frame in frames)
        return
    before, current = None, next(frames, None)
    while current is not None:
        after = next(frames, None)
        yield before, current, after
        before, current = current, after


def _frames(video: VideoFile, wanted: Collection[int], interlaced: str) -> Iterator[Any]:
    """Decoded frames in the order of their times, up to the first wanted one that is unsound.

    Unsound are frames that the decoder could not read in full, and those after them up to the next
    picture that stands by itself: they build upon them, whether or not they are flagged.

    Raises:
        BadClipError: size_changes, no_timestamps.
        _InterlacedError: when frames are flagged and only progressive ones are expected.
    """
    context = video.stream.codec_context
    size, latest, first_wanted = (context.width, context.height), None, min(wanted)
    is_sound = video.is_in_order  # a seek may lead between key frames, which some decoders hide
    for frame in _decoded(video, wanted, interlaced):
        if (frame.width, frame.height) != size:
            raise BadClipError("size_changes", f"{size} to {(frame.width, frame.height)}")
        if frame.is_corrupt:
            is_sound = False
        elif frame.key_frame and frame.pict_type in (PictureType.I, PictureType.NONE):
            is_sound = True
        if frame.pts is None:
            continue
        is_late = latest is not None and frame.pts <= latest
        if not video.is_in_order and (is_late or frame.pts not in video.stated_pts):
            return  # what a seek found made up its times
        if is_late:
            # Decoders hand out frames in the order in which they are shown: the times are made up,
            # as for H.264 with B-frames in AVI, which stores none.
            raise BadClipError("no_timestamps", "frames come in another order than their times")
        if latest is None and frame.pts > first_wanted:  # led past it
            return
        latest = frame.pts
        if not is_sound and frame.pts >= first_wanted:
            return
        if frame.interlaced_frame and interlaced != FLAGGED:
            raise _InterlacedError
        if is_sound:
            yield frame


def _decoded(video: VideoFile, wanted: Collection[int], interlaced: str) -> Iterator[Any]:
    """Frames as the decoder hands them out, without those that neither is wanted nor built upon."""
    context = video.stream.codec_context
    is_skipping = (
        interlaced == NEVER
        and context.name in SKIPPING_CODECS
        and video.container.format.name in SKIPPING_CONTAINERS
    )
    context.skip_frame = "DEFAULT"
    for packet in video.container.demux(video.stream):
        if is_skipping:
            is_needed = packet.size == 0 or packet.pts in wanted
            context.skip_frame = "DEFAULT" if is_needed else "NONREF"
        yield from packet.decode()


def _shown_size(video: VideoFile) -> tuple[Fraction, Fraction]:
    """Width and height as a player shows the video, in square pixels; a frame knows its rotation.

    Raises:
        BadClipError: corrupt, when there is no frame to ask.
    """
    problem = "no frame in its middle"
    for start in video.ways_to(video.pts[len(video.pts) // 2]):
        try:
            video.seek(start)
            frame = next(video.container.decode(video.stream), None)
        except DECODER_ERRORS as error:
            problem = one_line(error)
            continue
        if frame is not None:
            width, height = frame.width * _pixel_aspect(video.stream), Fraction(frame.height)
            return (height, width) if _quarter_turns(frame) % 2 else (width, height)
    raise BadClipError("corrupt", problem)


def _pixel_aspect(stream: Any) -> Fraction:
    """Width over height of a stored pixel."""
    return Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)


def _quarter_turns(frame: Any) -> int:
    """Quarter turns anti-clockwise that make the frame upright.

    A matrix [a b; c d] that mirrors turns the frame and then exchanges left and right: the turn
    alone is [-a b; -c d]. The library's angle is that of [a b; c d].
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside it is something that the library has no name for
        matrix = None
    if matrix is not None:
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
        if a * d < b * c:
            return round(-2 * math.atan2(b, -a) / math.pi) % 4
    return round(frame.rotation / 90) % 4
