"""Shapes that clips are cut to, and which of them suits a video. Pure.

Of the buckets that the video is long enough for: those nearest to its aspect ratio; of these the
longest; of these the largest that enlarges nothing, or else the smallest; of equals the one listed
first. A video that is too short for all is measured against the shortest.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from tpdiff_jax.videos.frame_times import is_long_enough

_TEXT = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})x([1-9]\d{0,5})")


class Bucket(NamedTuple):
    """A shape of clips: frames, and pixels of a frame."""

    num_frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


def parse_bucket(text: str) -> Bucket:
    """Read frames x height x width, as in 16x96x160.

    Raises:
        ValueError: for any other text.
    """
    match = _TEXT.fullmatch(text)
    if not match:
        raise ValueError(
            f"{text!r} is no bucket; allowed: frames x height x width, as in 16x96x160"
        )
    return Bucket(*map(int, match.groups()))


def choose_bucket(
    buckets: Sequence[Bucket], *, width: Fraction, height: Fraction, span: Fraction, fps: Fraction
) -> Bucket:
    """Return the bucket of a video.

    Args:
        buckets: in the order listed.
        width: of the video as it is shown, in square pixels.
        height: likewise.
        span: seconds from its first frame to its last.
        fps: frames per second of clips.
    """

    def preference(bucket: Bucket) -> tuple[Fraction, int, bool, int]:
        stretch = Fraction(width * bucket.height) / (height * bucket.width)
        enlarges = bucket.width > width or bucket.height > height
        area = bucket.height * bucket.width
        return max(stretch, 1 / stretch), -bucket.num_frames, enlarges, area if enlarges else -area

    shortest = min(bucket.num_frames for bucket in buckets)
    suitable = [
        bucket
        for bucket in buckets
        if bucket.num_frames == shortest or is_long_enough(span, bucket.num_frames, fps)
    ]
    return min(suitable, key=preference)
