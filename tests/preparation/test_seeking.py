"""Seeking changes how fast a clip is read and never what it shows.

What the same packets give in MP4, or decoded from the first to the last, every container gives.
"""

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.preparation.video_files import picture, read_index, rotate_header, write_video
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.preparation import video_decode
from tpdiff_jax.preparation.video_decode import ClipFormat, read_clips
from tpdiff_jax.preparation.video_file import VideoFile

SPEC = ClipFormat(
    buckets=(Bucket(8, 32, 48),),
    fps=Fraction(8),
    clips_per_video=3,
    max_pixels=10**9,
    max_seconds=100.0,
)
COUNT = 120
CODINGS = {
    "one_group": {"g": "250", "bf": "3"},
    "late_first_frame": {"g": "12", "bf": "3", "x264-params": "b-pyramid=normal"},
    "open_groups": {"g": "12", "bf": "3", "x264-params": "open-gop=1"},
    "no_b_frames": {"g": "12", "bf": "0"},
    "all_key_frames": {"g": "1"},
    "intra_refresh": {"g": "12", "x264-params": "intra-refresh=1:bframes=0"},
    "many_references": {"g": "30", "bf": "5", "refs": "6", "x264-params": "b-pyramid=strict"},
    "slices": {"g": "12", "bf": "2", "x264-params": "slices=4"},
}


def remux(source, target, container_format=None, options=None, skip=0):
    """The same packets in another container, from packet `skip` on."""
    with (
        av.open(str(source)) as read,
        av.open(str(target), "w", format=container_format, options=options or {}) as write,
    ):
        stream = write.add_stream_from_template(read.streams.video[0])
        for i, packet in enumerate(read.demux(read.streams.video[0])):
            if packet.dts is not None and i >= skip:
                packet.stream = stream
                write.mux(packet)
    return target


def write_noisy(path, options, **kwargs):
    """As `write_video`, and moving, so that a wrong reference shows."""
    return write_video(path, COUNT, options={"crf": "20", **options}, **kwargs)


def all_frames(path, wanted):
    """Pictures of frames decoded in order from the first one, without any seek or skip."""
    pictures = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            if frame.pts in wanted:
                pictures[frame.pts] = frame.to_ndarray()
    return pictures


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mov", "fragmented.mp4", "offset.ts"])
def test_any_container_gives_what_mp4_gives(tmp_path, coding, name):
    """MPEG-TS seeks by decoding time, which B-frames delay: it missed the first key frame."""
    whole = write_noisy(tmp_path / "whole.mp4", CODINGS[coding])
    options = {"movflags": "frag_keyframe+empty_moov"} if "fragmented" in name else {}
    options |= {"output_ts_offset": "95000"} if "offset" in name else {}  # near the clock's end
    path = remux(whole, tmp_path / name, options=options)
    assert read_index(read_clips(whole, SPEC)[0][0]) < 20
    for spec in (SPEC, dataclasses.replace(SPEC, clips_per_video=1)):
        expected, found = read_clips(whole, spec), read_clips(path, spec)
        assert len(found) == len(expected) == spec.clips_per_video
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("coding", CODINGS)
def test_frames_that_nobody_builds_upon_can_be_left_out(tmp_path, coding, monkeypatch):
    """The frames are those of a decoder that reads every packet, bit for bit."""
    path = write_noisy(tmp_path / "a.mp4", CODINGS[coding], size=(128, 192))
    seen = {}

    def keep(frame, reformatter, **kwargs):
        seen[frame.pts] = frame.to_ndarray()
        return picture(0, 32, 48)

    monkeypatch.setattr(video_decode, "make_picture", keep)
    read_clips(path, SPEC)
    expected = all_frames(path, seen)
    assert len(seen) == 24 and seen.keys() == expected.keys()
    for time in seen:
        np.testing.assert_array_equal(seen[time], expected[time])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mpg", "mpeg2video", {"g": "12", "bf": "0", "b": "4M"}),
        ("a.mpg", "mpeg1video", {"g": "15", "bf": "2", "b": "4M"}),
        ("a.ts", "mpeg2video", {"g": "12", "bf": "2", "b": "4M"}),
        ("a.ts", "libx265", {"x265-params": "keyint=12:bframes=4:log-level=none"}),
        ("a.avi", "mpeg4", {"g": "12", "bf": "2"}),
        ("a.avi", "mjpeg", {}),
        ("a.mkv", "libx265", {"x265-params": "keyint=12:open-gop=1:log-level=none"}),
        ("a.webm", "libvpx-vp9", {"g": "12", "deadline": "realtime", "auto-alt-ref": "1"}),
        ("a.mp4", "libsvtav1", {"g": "12", "preset": "12"}),
    ],
)
def test_every_clip_shows_the_frames_at_its_times(tmp_path, name, codec, options):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, COUNT, codec=codec, options=options, pix_fmt=pix_fmt)
    found = [[read_index(frame) for frame in clip] for clip in read_clips(path, SPEC)]
    times = np.arange(COUNT) / 30
    part = times[-1] / 3
    for j, indices in enumerate(found):
        targets = j * part + (part - 7 / 8) / 2 + np.arange(8) / 8
        np.testing.assert_allclose(times[indices], targets, atol=1 / 59)


@pytest.mark.parametrize("way", ["fails", "leads_too_far", "leads_to_the_end"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_where_seeking_does_not_help_decoding_starts_from_the_start(
    tmp_path, name, way, monkeypatch
):
    options = {"g": "12", "bf": "0"}
    path = write_video(tmp_path / name, COUNT, codec="mpeg4", options=options)
    buckets = (*SPEC.buckets, Bucket(8, 32, 32))  # which one is asked of a frame
    expected = read_clips(path, dataclasses.replace(SPEC, buckets=buckets))
    original = VideoFile.seek

    def seek(video, time):
        if time is None:
            return original(video, time)
        if way == "fails":
            raise av.error.PermissionError(1, "Operation not permitted")
        last = video.pts[-1] if way == "leads_to_the_end" else time + video.pts[40] - video.pts[0]
        return original(video, last)

    monkeypatch.setattr(VideoFile, "seek", seek)
    found = read_clips(path, dataclasses.replace(SPEC, buckets=buckets))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3"}, {"x264-params": "open-gop=1"}])
def test_a_recording_that_starts_midway_is_shown_from_its_first_key_frame(tmp_path, options):
    """As cut from a broadcast: what comes before is never shown in full by any player."""
    coding = {"g": "30", "sc_threshold": "0", **options}
    whole = write_video(tmp_path / "whole.ts", 90, options=coding)
    path = remux(whole, tmp_path / "a.ts", skip=10)
    (clip,) = read_clips(path, dataclasses.replace(SPEC, clips_per_video=1))
    first = 30 + (59 - 7 * 30 / 8) / 2  # of 60 frames from the key frame at 30 on
    expected = first + np.arange(8) * 30 / 8
    np.testing.assert_allclose([read_index(frame) for frame in clip], expected, atol=1)


def test_damage_outside_the_clip_does_not_matter(tmp_path):
    """A group of pictures that is damaged does not spoil the next one."""
    options = {"g": "10", "bf": "0", "crf": "5"}
    path = write_video(tmp_path / "a.ts", COUNT, options=options, size=(128, 192))
    expected = read_clips(path, dataclasses.replace(SPEC, clips_per_video=1))
    content = bytearray(path.read_bytes())
    for i in range(len(content) // 8, len(content) // 8 + 400):
        content[i] ^= 0x5A if i % 188 > 20 else 0
    path.write_bytes(bytes(content))
    found = read_clips(path, dataclasses.replace(SPEC, clips_per_video=1))
    np.testing.assert_array_equal(found[0], expected[0])


def test_the_shown_size_is_found_without_seeking(tmp_path):
    """A rotated video in MPEG-TS keeps its bucket; in MP4 the rotation swaps it."""
    buckets = (Bucket(8, 32, 48), Bucket(8, 48, 32))
    spec = dataclasses.replace(SPEC, buckets=buckets, clips_per_video=1)
    wide = write_video(tmp_path / "a.ts", 40, options={"g": "250", "bf": "3"})
    assert read_clips(wide, spec)[0].shape == (8, 32, 48, 3)
    turned = write_video(tmp_path / "a.mp4", 40, options={"g": "250", "bf": "3"})
    rotate_header(turned, 1)
    assert read_clips(turned, spec)[0].shape == (8, 48, 32, 3)
