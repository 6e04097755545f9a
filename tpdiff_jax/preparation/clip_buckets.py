"""Shapes that clips are cut to, and which of them suits a video. Pure.

Of the buckets that the video is long enough for: those nearest to its aspect ratio; of these the
longest; of these the largest that enlarges nothing, or else the smallest; of equals the one listed
first. A video that is too short for all is measured against the shortest.
"""

from collections.abc import Sequence
from fractions import Fraction

from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.preparation.frame_times import is_long_enough


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
