"""The bucket of a video: by length, aspect ratio and size; and its frames are the right ones."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.preparation.video_files import is_upright, read_index, rotate_header, write_video
from tpdiff_jax.clips.bucket import Bucket, parse_bucket
from tpdiff_jax.preparation.clip_buckets import choose_bucket
from tpdiff_jax.preparation.video_decode import ClipFormat, read_clips

SQUARE, WIDE, LONG, SMALL = "16x128x128", "16x96x160", "32x96x160", "16x48x80"
FPS = Fraction(8)


def choose(texts, width, height, seconds):
    buckets = [parse_bucket(text) for text in texts]
    size = {"width": Fraction(width), "height": Fraction(height)}
    return str(choose_bucket(buckets, **size, span=Fraction(seconds), fps=FPS))


@pytest.mark.parametrize(
    ("buckets", "width", "height", "seconds", "chosen"),
    [
        ((SQUARE, WIDE, LONG), 640, 640, 9, SQUARE),
        ((SQUARE, WIDE, LONG), 640, 360, 9, LONG),  # the longest of the nearest
        ((SQUARE, WIDE, LONG), 640, 360, 3, WIDE),  # 32 frames last 3.875 s
        ((SQUARE, LONG), 640, 360, 3, SQUARE),  # too short for the nearest
        ((LONG, "24x96x160"), 640, 360, 1, "24x96x160"),  # too short for all: the shortest
        ((SMALL, WIDE), 640, 360, 3, WIDE),  # the larger, which enlarges nothing
        ((WIDE, SMALL), 100, 60, 3, SMALL),  # both nearest; the larger would enlarge
        ((WIDE, SMALL), 40, 24, 3, SMALL),  # both enlarge: the smaller
        (("16x96x48", "16x48x96"), 640, 640, 3, "16x96x48"),  # a tie: the first listed
        (("16x48x96", "16x96x48"), 640, 640, 3, "16x48x96"),
    ],
)
def test_the_rule(buckets, width, height, seconds, chosen):
    assert choose(buckets, width, height, seconds) == chosen


@given(
    buckets=st.lists(
        st.builds(Bucket, st.integers(1, 40), st.integers(1, 300), st.integers(1, 300)),
        min_size=1, max_size=6, unique=True,
    ),
    width=st.integers(1, 600),
    height=st.integers(1, 600),
    span=st.fractions(0, 8),
)  # fmt: skip
def test_no_bucket_that_fits_is_nearer_or_as_near_and_longer(buckets, width, height, span):
    size = {"width": Fraction(width), "height": Fraction(height)}
    chosen = choose_bucket(buckets, **size, span=span, fps=FPS)

    def distance(bucket):  # of the aspect ratios' logarithms, but exact
        stretch = Fraction(width * bucket.height, height * bucket.width)
        return max(stretch, 1 / stretch)

    shortest = min(bucket.num_frames for bucket in buckets)
    limit = max(shortest, int(span * FPS + Fraction(1, 2)) + 1)  # frames that the video can fill
    assert chosen in buckets and chosen.num_frames <= limit
    for other in buckets:
        if other.num_frames <= limit:
            nearness = (distance(chosen), -chosen.num_frames)
            assert nearness <= (distance(other), -other.num_frames)


@pytest.mark.parametrize("text", ["16x96", "16x96x160x3", "0x96x160", "16X96X160", "../16x9x9", ""])
def test_what_is_no_bucket_is_refused(text):
    with pytest.raises(ValueError, match="frames x height x width"):
        parse_bucket(text)


def test_videos_are_cut_to_the_bucket_of_how_they_are_shown(tmp_path):
    """Wide ones, tall ones by their size or by rotation, and short ones, each with its frames."""
    spec = ClipFormat(
        buckets=(Bucket(8, 32, 48), Bucket(8, 48, 32), Bucket(4, 32, 48)),
        fps=FPS, clips_per_video=1, max_pixels=10**9, max_seconds=100.0,
    )  # fmt: skip
    wide = write_video(tmp_path / "wide.mp4", 40)
    stretched = write_video(tmp_path / "stretched.mp4", 40, size=(96, 64), aspect=Fraction(9, 4))
    tall = write_video(tmp_path / "tall.mp4", 40, size=(96, 64))
    short = write_video(tmp_path / "short.mp4", 20)
    turned = write_video(tmp_path / "turned.mp4", 40)
    rotate_header(turned, 1)
    clips = {
        path.stem: read_clips(path, spec)[0] for path in (wide, stretched, tall, short, turned)
    }
    assert {name: clip.shape[:3] for name, clip in clips.items()} == {
        "wide": (8, 32, 48),
        "stretched": (8, 32, 48),
        "tall": (8, 48, 32),
        "short": (4, 32, 48),
        "turned": (8, 48, 32),
    }
    middle = [6, 10, 14, 18, 21, 25, 29, 33]  # eight of 40 frames at 30 a second
    for name in ("wide", "stretched", "tall"):
        assert [read_index(frame) for frame in clips[name]] == middle
    assert all(is_upright(frame) for frame in clips["wide"])
    assert [read_index(frame) for frame in clips["short"]] == [4, 8, 11, 15]
