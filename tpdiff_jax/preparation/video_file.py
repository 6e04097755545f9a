"""Opening a video and reading when its frames are shown, without decoding anything.

Length, rate and damage are known from the packets themselves and not from a header that may be
wrong; variable frame rates need no special case. The caps on pixels and duration are checked here.

Reads local containers only: playlists and other formats that name further files are not tried.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.files.open_files import naming_open_files
from tpdiff_jax.preparation.deinterlace import first_field

OPEN_OPTIONS = {
    # Demuxers whose files hold the video itself; a playlist could open other files and addresses.
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,gif,apng",
    "protocol_whitelist": "file",
}
# A title in another encoding than UTF-8 is no reason to refuse a video; PyAV 19 needs no telling.
LENIENT_TITLES: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
# What damaged files raise: besides the library's own errors LookupError, for a stream that appears
# midway, ValueError, for a format without a way to RGB, and nonsense durations.
DECODER_ERRORS = (av.FFmpegError, LookupError, ValueError, ArithmeticError, MemoryError)
TRUNCATION_TOLERANCE = Fraction(1, 10)  # seconds, beside two frames: headers round durations
# Read from the start: each picture of an animation builds upon the one before, whatever its packets
# say, and after a seek in an MPEG program stream frames come with times that are not theirs.
READ_IN_ORDER = ("gif", "apng", "mpeg")
MOV, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
PNG_DEPTH_AT = 24
GIF_SHORTEST, GIF_DEFAULT = 2, 10  # hundredths of a second
IMAGES = (  # where, how the bytes of a still image begin
    (0, b"\x89PNG"),
    (0, b"\xff\xd8\xff"),  # JPEG
    (0, b"GIF8"),
    (8, b"WEBP"),
    (0, b"BM"),
    (0, b"II*\0"),  # TIFF
    (0, b"MM\0*"),
    (0, b"\xff\x0a"),  # JPEG XL
    (4, b"JXL "),
    (4, b"jP  "),  # JPEG 2000
    (0, b"8BPS"),
    (0, b"\x76\x2f\x31\x01"),  # OpenEXR
    (4, b"ftypheic"),
    (4, b"ftypmif1"),
    (4, b"ftypavif"),
)


@dataclasses.dataclass
class VideoFile:
    """An open video, used as a context manager.

    Attributes:
        path: of the file.
        container: as the library opened it.
        stream: the video in it.
        pts: presentation times of the frames, in units of `stream.time_base`, increasing.
        keys: (presentation time, decoding time) of the key frames, in the order of the file.
        stated_pts: presentation times of all packets, those that are never shown too.
        stated_tags: matrix, primaries and transfer as the container has them, see `read_colour`.
        stated_field: "tff" or "bff" where the container says that the video is interlaced, else "".
        is_in_order: whether what is read now was read from the start of the file.
    """

    path: pathlib.Path
    container: Any
    stream: Any
    pts: list[int] = dataclasses.field(default_factory=list)
    keys: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    stated_pts: set[int] = dataclasses.field(default_factory=set)
    stated_tags: tuple[int, int, int] = (0, 0, 0)
    stated_field: str = ""
    is_in_order: bool = True

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.container.close()

    @property
    def times(self) -> list[Fraction]:
        """When each frame is shown, in seconds, increasing.

        A GIF that asks for less than 2/100 s a frame is shown with 1/10 s, as in every browser.
        """
        pts: Sequence[int] = self.pts
        if self.container.format.name == "gif":
            gaps = np.diff(pts)
            pts = np.cumsum([pts[0], *np.where(gaps < GIF_SHORTEST, GIF_DEFAULT, gaps)]).tolist()
        return [time * self.stream.time_base for time in pts]

    def seek(self, time: int | None) -> None:
        """Go to the last key frame at or before a time; None opens the file anew.

        Raises:
            DECODER_ERRORS: where the container cannot.
        """
        self.is_in_order = time is None
        if time is None:
            self.container.close()
            self.container, self.stream = _open(self.path)
        else:
            self.container.seek(time, stream=self.stream, backward=True)

    def ways_to(self, time: int) -> list[int | None]:
        """Where decoding may start to get to a frame, in the order in which to try.

        The nearest key frame by its presentation and by its decoding time, which is what some
        containers seek by; the first frame, since an index may be wrong and an open group of
        pictures builds upon frames before its key frame; and reading in order, without seeking.
        """
        if self.container.format.name in READ_IN_ORDER:
            return [None]
        decoding_times = [dts for pts, dts in self.keys if pts <= time][-1:]
        return [*dict.fromkeys([time, *decoding_times, self.pts[0]]), None]


def open_video(path: pathlib.Path, max_pixels: int, max_seconds: float) -> VideoFile:
    """Open a video and read its packets' times.

    Args:
        path: a regular file.
        max_pixels: width x height x frames that it may have.
        max_seconds: duration that it may have.

    Returns:
        The video; to be closed by the caller.

    Raises:
        BadClipError: empty_file, unreadable, still_image, no_video_stream, no_timestamps,
            too_large, too_long, truncated or corrupt.
        OpenFilesError: when no further file may be open.
    """
    if path.stat().st_size == 0:
        raise BadClipError("empty_file")
    try:
        video = VideoFile(path, *_open(path))
    except DECODER_ERRORS as error:
        if _is_image(path):
            raise BadClipError("still_image") from error
        raise BadClipError("unreadable", one_line(error)) from error
    try:
        if video.container.format.name == "apng" and _first_bytes(path)[PNG_DEPTH_AT] < 8:
            raise BadClipError("unreadable", "APNG of fewer than 8 bits, which is decoded wrongly")
        context = video.stream.codec_context  # once decoding starts, the decoder writes there
        video.stated_tags = (context.colorspace, context.color_primaries, context.color_trc)
        video.stated_field = first_field(context.field_order)
        _read_times(video, max_pixels, max_seconds)
    except BaseException:
        video.container.close()
        raise
    return video


def _open(path: pathlib.Path) -> tuple[Any, Any]:
    with naming_open_files(f"{path} cannot be opened"):
        container = av.open(str(path), options=OPEN_OPTIONS, **LENIENT_TITLES)
    try:
        stream = _video_stream(container)
    except BadClipError:
        container.close()
        raise
    # Every worker decodes one video at a time: threads would only fight over the cores.
    stream.thread_type = "NONE"
    return container, stream


def _video_stream(container: Any) -> Any:
    """The first stream that moves; cover art of a sound file and an animation's cover do not."""
    if not container.streams:
        raise BadClipError("unreadable", "no stream can be found")
    still = av.stream.Disposition.attached_pic | av.stream.Disposition.still_image
    for stream in container.streams.video:
        if not stream.disposition & still:
            if stream.codec_context is None:
                raise BadClipError("unreadable", "no decoder for its codec")
            return stream
    raise BadClipError("no_video_stream")


def _read_times(video: VideoFile, max_pixels: int, max_seconds: float) -> None:
    """Fill in `pts` and `keys`."""
    container, stream = video.container, video.stream
    pixels = stream.codec_context.width * stream.codec_context.height
    seen: dict[int, int] = {}  # presentation time -> duration
    try:
        for packet in container.demux(stream):
            if packet.size == 0:  # the end
                continue
            if packet.pts is None:
                raise BadClipError("no_timestamps")
            video.stated_pts.add(packet.pts)
            if packet.is_keyframe:
                video.keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
            if packet.is_discard:  # cut away by an edit list
                continue
            seen[packet.pts] = packet.duration or 0
            if pixels * len(seen) > max_pixels:
                raise BadClipError("too_large", f"{pixels} pixels a frame, {len(seen)}+ frames")
    except DECODER_ERRORS as error:
        raise BadClipError("corrupt", one_line(error)) from error
    if len(seen) < 2 and _is_image(video.path):
        raise BadClipError("still_image")
    if pixels == 0 or not seen:
        raise BadClipError("unreadable", "no frames")
    pts = sorted(seen)
    gaps = np.diff(pts)
    gap = int(np.median(gaps)) if len(gaps) else 0
    seconds = (pts[-1] + max(seen[pts[-1]], gap) - pts[0]) * stream.time_base
    if seconds > max_seconds:
        raise BadClipError("too_long", f"{float(seconds):.1f} s")
    missing = _stated_seconds(container, stream) - seconds
    if missing > TRUNCATION_TOLERANCE + 2 * gap * stream.time_base:
        raise BadClipError("truncated", f"{float(missing):.2f} s are missing")
    # A recording that starts midway is shown from its first key frame on.
    start = video.keys[0][0] if video.keys else pts[0]
    video.pts = [time for time in pts if time >= start]
    if not video.pts:
        raise BadClipError("corrupt", "its first key frame lies behind all that is shown")


def _stated_seconds(container: Any, stream: Any) -> Fraction:
    """Duration of the stream as its header says; 0 where it does not."""
    if stream.duration is not None:
        duration = stream.duration
        if container.format.name == MOV:  # an edit list may say how long nothing is shown at first
            duration -= max(stream.start_time or 0, 0)
        return Fraction(duration) * stream.time_base
    if container.duration is not None and len(container.streams) == 1:
        # Matroska states the end of the last frame, counted from zero.
        start = container.start_time or 0
        return Fraction(container.duration - max(start, 0), av.time_base)
    return Fraction(0)


def _is_image(path: pathlib.Path) -> bool:
    head = _first_bytes(path)
    return any(head[at:].startswith(magic) for at, magic in IMAGES)


def _first_bytes(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return file.read(32)


def one_line(error: Exception) -> str:
    """Return an error as one short line, of the library's own without the file's path."""
    text = f"{type(error).__name__}: {error.args[1] if len(error.args) > 1 else error}"
    return " ".join(text.split())[:200]
