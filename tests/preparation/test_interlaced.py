"""Interlaced video gives pictures of one moment, without combs, whoever says it is interlaced.

A bar moves six pixels a field. Two fields woven into one frame make combs: rows differ.
"""

import dataclasses
from fractions import Fraction

import av
import av.filter
import numpy as np
import pytest

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.preparation.video_decode import ClipFormat, read_clips

HEIGHT, WIDTH, STEP, BAR = 64, 192, 6, 30
SPEC = ClipFormat(
    buckets=(Bucket(8, HEIGHT, WIDTH),),
    fps=Fraction(8),
    clips_per_video=1,
    max_pixels=10**9,
    max_seconds=100.0,
)
LOSSLESS = {"qp": "0", "preset": "ultrafast"}


def moment(field):
    """Luma of the scene at a field's time: a bar on a ground with a vertical gradient."""
    luma = np.broadcast_to(40 + np.arange(HEIGHT)[:, None], (HEIGHT, WIDTH)).copy()
    left = (STEP * field) % (WIDTH - BAR)
    luma[:, left : left + BAR] = 200
    return luma


def woven(k, first):
    """Frame k: the earlier field on rows `first`, first + 2, ...; the later one on the others."""
    luma = moment(2 * k)
    luma[1 - first :: 2] = moment(2 * k + 1)[1 - first :: 2]
    return luma


def flagged(frame, first):
    """The frame saying which field is the earlier one, which encoders ask the frame."""
    if first is None:
        return frame
    graph = av.filter.Graph()
    source = graph.add_buffer(template=frame, time_base=Fraction(1, 30))
    graph.link_nodes(source, graph.add("setfield", ("tff", "bff")[first]),
                     graph.add("buffersink")).configure()  # fmt: skip
    graph.push(frame)
    frame = graph.pull()
    frame.pts = None
    return frame


def write(path, luma_of, *, codec="libx264", options=LOSSLESS, pix_fmt="yuv420p", count=60,
          field_order=0, first=None):  # fmt: skip
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pix_fmt
        if field_order:
            stream.codec_context.field_order = field_order
        for k in range(count):
            frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
            for plane, values in zip(frame.planes, (luma_of(k), 128, 128), strict=True):
                rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)
                rows[:, : plane.width] = values
            container.mux(stream.encode(flagged(frame.reformat(format=pix_fmt), first)))
        container.mux(stream.encode())
    return path


def read(path):
    (clip,) = read_clips(path, SPEC)
    return clip.astype(float).mean(-1)


def combs(clip):
    """Mean difference of each row from the mean of its neighbours; the gradient has none."""
    return np.abs(clip[:, 1:-1] - (clip[:, :-2] + clip[:, 2:]) / 2).mean()


def bar_of(frame, rows):
    """First and last column of the bar on these rows."""
    columns = np.flatnonzero(frame[rows].mean(0) > 130)
    return int(columns[0]), int(columns[-1])


MPEG2 = {"flags": "+ildct+ilme", "qscale": "2", "g": "12", "bf": "2"}
FLAGGED = [
    ("a.mp4", "libx264", LOSSLESS | {"x264-params": "tff=1"}, "yuv420p", 0),
    ("a.mp4", "libx264", LOSSLESS | {"x264-params": "bff=1"}, "yuv420p", 1),
    ("a.mkv", "libx264", {"crf": "4", "x264-params": "tff=1:bframes=3:keyint=12"}, "yuv420p", 0),
    ("a.ts", "libx264", {"crf": "4", "x264-params": "bff=1:bframes=3:keyint=12"}, "yuv420p", 1),
    ("a.mp4", "libx264", LOSSLESS | {"x264-params": "tff=1"}, "yuv422p10le", 0),
    ("a.mpg", "mpeg2video", MPEG2 | {"b": "8M"}, "yuv420p", 1),
    ("a.ts", "mpeg2video", MPEG2 | {"b": "8M"}, "yuv420p", 1),
    ("a.mp4", "mpeg4", {"flags": "+ildct+ilme", "qscale": "2", "b": "8M"}, "yuv420p", 1),
]


@pytest.mark.parametrize(("name", "codec", "options", "pix_fmt", "first"), FLAGGED)
def test_flagged_frames_are_deinterlaced(tmp_path, name, codec, options, pix_fmt, first):
    path = write(
        tmp_path / name,
        lambda k: woven(k, first),
        codec=codec,
        options=options,
        pix_fmt=pix_fmt,
        first=first,
    )
    clip = read(path)
    assert combs(clip) < 1.5
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.interlaced_frame, "or the test would show nothing"


def test_combs_are_seen_by_the_measure(tmp_path):
    """The same without flags: as it was read before."""
    clip = read(write(tmp_path / "a.mp4", lambda k: woven(k, 0)))
    assert combs(clip) > 5
    assert combs(read(write(tmp_path / "b.mp4", lambda k: moment(2 * k)))) < 0.5


@pytest.mark.parametrize("first", [0, 1], ids=["top_first", "bottom_first"])
def test_the_picture_is_of_the_earlier_field(tmp_path, first):
    """Its rows are kept as they are; the others show the bar at the same place."""
    options = LOSSLESS | {"x264-params": "bff=1" if first else "tff=1"}
    path = write(tmp_path / "a.mp4", lambda k: woven(k, first), options=options, first=first)
    clip = read(path)
    places = set()
    for frame in clip:
        kept = bar_of(frame, slice(first, None, 2))
        filled = bar_of(frame, slice(1 - first, None, 2))
        places.add(kept[0])
        moments = [m for m in range(0, 120, 2) if (STEP * m) % (WIDTH - BAR) == kept[0]]
        assert moments, f"{kept}: no place of the bar at an even field"
        exact = np.clip((moment(moments[0]) - 16) / 219 * 255, 0, 255)
        np.testing.assert_allclose(frame[first::2], exact[first::2], atol=1)
        assert abs(filled[0] - kept[0]) <= 2 and abs(filled[1] - kept[1]) <= 2
    assert len(places) > 4, "the bar moves from frame to frame"


@pytest.mark.parametrize(
    ("name", "codec", "options", "pix_fmt", "field_order", "first"),
    [
        ("a.mkv", "ffv1", {}, "yuv420p", 2, 0),
        ("a.mkv", "ffv1", {}, "yuv420p", 3, 1),
        ("a.mkv", "ffv1", {}, "yuv444p10le", 3, 1),
        ("a.mkv", "libx264", LOSSLESS, "yuv420p", 2, 0),
        ("a.mkv", "libx264", LOSSLESS, "yuv420p", 3, 1),
        ("a.mov", "rawvideo", {}, "uyvy422", 3, 1),
        ("a.mov", "prores_ks", {}, "yuv422p10le", 2, 0),
    ],
)
def test_where_only_the_container_says_so_it_is_believed(
    tmp_path, name, codec, options, pix_fmt, field_order, first
):
    path = write(
        tmp_path / name, lambda k: woven(k, first), codec=codec, options=options,
        pix_fmt=pix_fmt, field_order=field_order,
    )  # fmt: skip
    clip = read(path)
    assert combs(clip) < 1.5
    places = {(STEP * field) % (WIDTH - BAR) for field in range(0, 120, 2)}  # of earlier fields
    for frame in clip:
        assert bar_of(frame, slice(first, None, 2))[0] in places


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_several_clips_with_frames_that_nobody_builds_upon(tmp_path, name):
    """Skipping, as for progressive video, would take a frame's neighbours away."""
    options = {"crf": "4", "x264-params": "tff=1:bframes=5:b-pyramid=none:keyint=24"}
    path = write(tmp_path / name, lambda k: woven(k, 0), options=options, first=0, count=120)
    clips = read_clips(path, dataclasses.replace(SPEC, clips_per_video=3))
    assert len(clips) == 3
    for clip in clips:
        assert combs(clip.astype(float).mean(-1)) < 1.5
    options = {"crf": "4", "x264-params": "tff=1:bframes=5:b-pyramid=none:keyint=240"}
    whole = write(tmp_path / "b.mp4", lambda k: woven(k, 0), options=options, first=0, count=120)
    found = read_clips(whole, dataclasses.replace(SPEC, clips_per_video=3))
    for clip, other in zip(clips, found, strict=True):
        assert np.abs(clip.astype(float) - other).mean() < 3


def test_each_picture_of_a_field_has_a_reason(tmp_path):
    options = {"x265-params": "interlace=tff:lossless=1:log-level=none"}
    path = write(tmp_path / "a.mp4", moment, codec="libx265", options=options)
    with pytest.raises(BadClipError) as bad:
        read_clips(path, SPEC)
    assert bad.value.reason == "interlaced_fields"


def test_in_mixed_video_only_flagged_frames_are_deinterlaced(tmp_path):
    """Progressive scenes with detail in every row stay as they are, beside interlaced ones."""
    rows = np.where(np.arange(HEIGHT)[:, None] % 2, 60, 180) + np.zeros((1, WIDTH), int)
    first = write(tmp_path / "p.ts", lambda k: rows, options=LOSSLESS | {"g": "10"}, count=40)
    options = LOSSLESS | {"x264-params": "tff=1", "g": "10"}
    second = write(tmp_path / "i.ts", lambda k: woven(k, 0), options=options, count=40, first=0)
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as target:
        stream, shift = None, 0
        for part in (first, second):
            with av.open(str(part)) as source:
                if stream is None:
                    stream = target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(source.streams.video[0]):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        target.mux(packet)
            shift += round(40 / 30 * 90000)
    clip = read(path)
    assert len(clip) == 8
    exact = (rows - 16) / 219 * 255
    is_progressive = [np.abs(frame - exact).max() <= 1 for frame in clip]
    assert 2 <= sum(is_progressive) <= 6 and is_progressive == sorted(is_progressive, reverse=True)
    assert combs(clip[~np.array(is_progressive)]) < 1.5


@pytest.mark.parametrize("first", [0, 1], ids=["top_first", "bottom_first"])
def test_a_hard_telecine_has_no_combs(tmp_path, first):
    """Film of 24 pictures a second in 60 fields, 2:3: two of five frames weave two pictures."""

    def frame(k):
        luma = moment(2 * int(2 * k * 24 / 60))
        luma[1 - first :: 2] = moment(2 * int((2 * k + 1) * 24 / 60))[1 - first :: 2]
        return luma

    options = LOSSLESS | {"x264-params": "bff=1" if first else "tff=1"}
    assert combs(read(write(tmp_path / "a.mp4", frame))) > 1.5
    assert combs(read(write(tmp_path / "b.mp4", frame, options=options, first=first))) < 1.5


def test_the_frame_before_and_after_count_wherever_decoding_starts(tmp_path):
    """Key frame by key frame or from the start: the same bytes."""
    clips = []
    for keyint in (1, 4, 7, 250):
        options = LOSSLESS | {"x264-params": f"tff=1:keyint={keyint}"}
        path = write(tmp_path / f"{keyint}.mp4", lambda k: woven(k, 0), options=options, first=0)
        clips.append(read(path))
    for clip in clips[1:]:
        np.testing.assert_array_equal(clip, clips[0])
