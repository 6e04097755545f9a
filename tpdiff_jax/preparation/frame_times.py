"""Which frames of a video make a clip at a fixed rate: the nearest in presentation time.

Clips of F frames at rate r are spread evenly over a video: with n clips, the span from its first
to its last frame is cut into n equal parts, and each clip lies in the middle of its part. Frame k
of a clip that starts at s is the frame whose presentation time is nearest to s + k / r, the
earlier of two equally near ones. Times are exact fractions, so a rate of 30000 / 1001 needs no
tolerance, and a variable rate no special case.
"""

import bisect
import itertools
from collections.abc import Sequence
from fractions import Fraction

from tpdiff_jax.clips.bad_clips import BadClipError

MIN_DISTINCT_SHARE = Fraction(9, 10)
"""A clip in which fewer of the frames differ comes from a video slower than the asked-for rate."""


def is_long_enough(span: Fraction, num_frames: int, fps: Fraction) -> bool:
    """Whether a clip's last frame is shown at most half an interval after the video's last.

    Args:
        span: seconds from the video's first frame to its last.
        num_frames: frames per clip.
        fps: frames per second of a clip.
    """
    return span + 1 / (2 * fps) >= (num_frames - 1) / fps


def clip_starts(
    first: Fraction, last: Fraction, num_frames: int, fps: Fraction, max_clips: int
) -> list[Fraction]:
    """Start times of the clips of a video, in seconds.

    Args:
        first: presentation time of the first frame.
        last: presentation time of the last frame.
        num_frames: frames per clip, F.
        fps: frames per second of a clip, r.
        max_clips: take at most so many; they never overlap.

    Returns:
        At least one start.

    Raises:
        BadClipError: too_short, unless the video `is_long_enough`.
    """
    span, length = last - first, (num_frames - 1) / fps
    if not is_long_enough(span, num_frames, fps):
        raise BadClipError("too_short", f"{float(span):.3f} s, needs {float(length):.3f} s")
    count = max(1, min(max_clips, int((span + 1 / fps) * fps / num_frames)))
    part = span / count
    return [first + j * part + max(part - length, Fraction(0)) / 2 for j in range(count)]


def nearest_frames(
    times: Sequence[Fraction], start: Fraction, num_frames: int, fps: Fraction
) -> list[int]:
    """Index of the frame shown nearest to each target time.

    Args:
        times: presentation times of all frames in seconds, strictly increasing.
        start: time of the clip's first frame.
        num_frames: frames per clip.
        fps: frames per second of the clip.

    Returns:
        Indices into `times`, [num_frames], never decreasing.

    Raises:
        BadClipError: rate_too_low, when too many frames would repeat.
    """
    chosen = []
    for k in range(num_frames):
        target = start + k / fps
        right = min(bisect.bisect_left(times, target), len(times) - 1)
        left = max(right - 1, 0)
        chosen.append(left if target - times[left] <= times[right] - target else right)
    distinct = len(set(chosen))
    if distinct < MIN_DISTINCT_SHARE * num_frames:
        holds = [b - a for a, b in itertools.pairwise(times[chosen[0] : chosen[-1] + 2])]
        raise BadClipError(
            "rate_too_low",
            f"{distinct} different frames of {num_frames}; no other picture for "
            f"{float(max(holds)):.1f} s",
        )
    return chosen
