"""The sampled frames are the nearest ones in time, at any rate, constant or not."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.preparation.frame_times import clip_starts, nearest_frames


def regular(count, rate):
    return [Fraction(i) / rate for i in range(count)]


def test_a_rate_that_divides_takes_every_nth_frame():
    chosen = nearest_frames(regular(40, 24), Fraction(1, 4), 8, Fraction(8))
    assert chosen == [6, 9, 12, 15, 18, 21, 24, 27]


def test_an_uneven_rate_takes_the_nearest_frame():
    """30 to 8 per second: targets at 0, 3.75, 7.5, 11.25, ... frames; a tie takes the earlier."""
    chosen = nearest_frames(regular(60, 30), Fraction(0), 8, Fraction(8))
    assert chosen == [0, 4, 7, 11, 15, 19, 22, 26]


@settings(max_examples=200, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 60), min_size=30, max_size=120),
    start=st.integers(0, 200),
    fps=st.sampled_from([Fraction(8), Fraction(24000, 1001), Fraction("12.5")]),
)
def test_no_other_frame_is_nearer(gaps, start, fps):
    times = [Fraction(int(t), 1000) for t in np.cumsum(gaps)]
    try:
        chosen = nearest_frames(times, Fraction(start, 1000), 6, fps)
    except BadClipError as bad:
        assert bad.reason == "rate_too_low"
        return
    for k, frame in enumerate(chosen):
        target = Fraction(start, 1000) + k / fps
        assert abs(times[frame] - target) == min(abs(t - target) for t in times)
    assert chosen == sorted(chosen)


def test_frames_that_would_repeat_are_refused():
    with pytest.raises(BadClipError) as bad:
        nearest_frames(regular(20, 4), Fraction(0), 16, Fraction(8))
    assert bad.value.reason == "rate_too_low"


def test_one_clip_lies_in_the_middle():
    (start,) = clip_starts(Fraction(0), Fraction(4), 16, Fraction(8), 1)
    assert start == (4 - Fraction(15, 8)) / 2


@settings(max_examples=200, deadline=None)
@given(
    first=st.integers(0, 500),
    span=st.integers(1000, 60_000),
    num_frames=st.integers(2, 32),
    max_clips=st.integers(1, 6),
)
def test_clips_never_overlap_and_stay_inside(first, span, num_frames, max_clips):
    fps, begin = Fraction(8), Fraction(first, 1000)
    end = begin + Fraction(span, 1000)
    length = (num_frames - 1) / fps
    try:
        starts = clip_starts(begin, end, num_frames, fps, max_clips)
    except BadClipError as bad:
        assert bad.reason == "too_short" and length > Fraction(span, 1000)
        return
    assert 1 <= len(starts) <= max_clips
    half = 1 / (2 * fps)
    assert starts[0] >= begin and starts[-1] + length <= end + half
    for a, b in zip(starts, starts[1:], strict=False):
        assert b - a >= num_frames / fps - 1 / fps, "the next clip starts behind the last frame"


def test_a_long_video_gives_as_many_clips_as_allowed():
    assert len(clip_starts(Fraction(0), Fraction(60), 16, Fraction(8), 5)) == 5
    assert len(clip_starts(Fraction(0), Fraction(5), 16, Fraction(8), 5)) == 2


def test_a_video_shorter_than_a_clip_is_refused():
    with pytest.raises(BadClipError) as bad:
        clip_starts(Fraction(0), Fraction(1), 16, Fraction(8), 1)
    assert bad.value.reason == "too_short"
