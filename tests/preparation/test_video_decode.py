"""Every sampled frame is the right one, and every bad file is refused for the right reason.

The frames of the test videos show their index, which is read back after decoding and resizing.
"""

import dataclasses
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.preparation.video_files import (
    is_upright,
    read_index,
    rotate_header,
    set_edit,
    set_matrix,
    shift_times,
    write_sound,
    write_turned,
    write_video,
)
from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.preparation.frame_resize import crop_box, resize_frame, resize_plane
from tpdiff_jax.preparation.video_decode import ClipFormat, read_clips

SPEC = ClipFormat(
    buckets=(Bucket(8, 32, 48),),
    fps=Fraction(8),
    clips_per_video=1,
    max_pixels=10**9,
    max_seconds=100.0,
)
SECOND_GROUP = {"g": "12"}  # a key frame every 12: seeking has something to seek to
FASTSTART = {"movflags": "+faststart"}


def nearest(times, num_frames=8, fps=8.0):
    """Indices that one clip in the middle must show, by brute force."""
    times = np.asarray(times, float) - times[0]
    start = max(times[-1] - (num_frames - 1) / fps, 0.0) / 2
    targets = start + np.arange(num_frames) / fps
    return [int(np.argmin(np.abs(times - target) - 1e-9 * (times < target))) for target in targets]


def indices(path, spec=SPEC):
    return [[read_index(frame) for frame in clip] for clip in read_clips(path, spec)]


def reason(path, spec=SPEC):
    with pytest.raises(BadClipError) as bad:
        read_clips(path, spec)
    return bad.value.reason


@pytest.mark.parametrize(
    ("name", "codec", "options", "pix_fmt"),
    [
        ("h264.mp4", "libx264", {"g": "12", "bf": "3"}, "yuv420p"),
        ("h264.mkv", "libx264", {"g": "12", "bf": "2"}, "yuv420p"),
        ("open_group.mp4", "libx264", {"g": "12", "x264-params": "open-gop=1"}, "yuv420p"),
        ("h264.ts", "libx264", SECOND_GROUP, "yuv420p"),
        ("ten_bits.mp4", "libx264", SECOND_GROUP, "yuv420p10le"),
        ("full_chroma.mp4", "libx264", SECOND_GROUP, "yuv444p"),
        ("vp9.webm", "libvpx-vp9", {"g": "12", "deadline": "realtime"}, "yuv420p"),
        ("mpeg4.mp4", "mpeg4", {"g": "12", "bf": "2"}, "yuv420p"),
        ("mpeg4.avi", "mpeg4", {"g": "12", "bf": "2"}, "yuv420p"),
    ],
)
def test_every_sampled_frame_is_the_nearest(tmp_path, name, codec, options, pix_fmt):
    path = write_video(tmp_path / name, 60, codec=codec, options=options, pix_fmt=pix_fmt)
    (found,) = indices(path)
    assert found == nearest(np.arange(60) / 30)


@pytest.mark.parametrize("fps", [8, 24, 25, 50])
def test_any_constant_rate_is_brought_to_the_target_rate(tmp_path, fps):
    path = write_video(tmp_path / "a.mp4", 2 * fps, fps=fps)
    (found,) = indices(path)
    assert found == nearest(np.arange(2 * fps) / fps)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_variable_rate_is_sampled_by_time_and_not_by_count(tmp_path, name):
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.choice([10, 25, 60, 110], 60))
    codec = "libx264" if name.endswith("mp4") else "libvpx-vp9"
    path = write_video(tmp_path / name, times_ms=times, codec=codec, options=SECOND_GROUP)
    (found,) = indices(path)
    assert found == nearest(times / 1000)
    by_count = np.linspace(0, 59, 8).round()
    assert found != by_count.tolist(), "the test must tell the two apart"


def test_several_clips_of_one_video_lie_side_by_side(tmp_path):
    path = write_video(tmp_path / "a.mp4", 200, fps=40, options=SECOND_GROUP)
    found = indices(path, dataclasses.replace(SPEC, clips_per_video=4))
    assert len(found) == 4
    flat = [index for clip in found for index in clip]
    assert flat == sorted(set(flat)), "in order, and no frame twice"
    assert {b - a for clip in found for a, b in zip(clip, clip[1:], strict=False)} == {5}


def test_frames_that_an_edit_list_cuts_away_are_not_sampled(tmp_path):
    """As a phone trims a video: the first 20 frames stay in the file and are never shown."""
    whole = write_video(tmp_path / "whole.mp4", 90, options=SECOND_GROUP)
    path = shift_times(whole, tmp_path / "a.mp4", Fraction(-20, 30))
    (found,) = indices(path)
    assert found == [20 + i for i in nearest(np.arange(70) / 30)]


def test_an_edit_list_that_delays_and_trims_is_no_truncation(tmp_path):
    """Shown from 2 s on for 2.5 of 4 s: what comes before the video is none of its length."""
    options = {"g": "12", "crf": "1"}
    whole = write_video(tmp_path / "whole.mp4", 120, size=(128, 192), options=options)
    path = shift_times(whole, tmp_path / "a.mp4", Fraction(2))
    assert len(indices(path)) == 1
    set_edit(path, 1, 2500)
    (found,) = indices(path)
    assert found == nearest(np.arange(75) / 30)


def test_a_delayed_video_that_is_cut_is_truncated(tmp_path):
    options = {"g": "12", "crf": "1"}
    whole = write_video(tmp_path / "whole.mp4", 120, size=(128, 192), options=options)
    path = shift_times(whole, tmp_path / "a.mp4", Fraction(1, 2), FASTSTART)
    assert len(indices(path)) == 1, "whole, it is fine"
    assert reason(cut(path, 0.6)) == "truncated"


@pytest.mark.parametrize("size", [(63, 95), (65, 97), (33, 47)])
def test_odd_sizes_are_read(tmp_path, size):
    path = write_video(tmp_path / "a.mp4", 40, size=size, pix_fmt="yuv444p")
    (found,) = indices(path)
    assert found == nearest(np.arange(40) / 30)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_rotated_video_is_turned_upright(tmp_path, quarter_turns):
    """The frames are stored turned the other way, as a phone held sideways stores them."""
    path = write_turned(tmp_path / "a.mp4", quarter_turns)
    (as_stored,) = read_clips(path, SPEC)
    assert not is_upright(as_stored[0])
    rotate_header(path, quarter_turns)
    (clip,) = read_clips(path, SPEC)
    assert all(is_upright(frame) for frame in clip)
    assert [read_index(frame) for frame in clip] == nearest(np.arange(40) / 30)


MIRRORED = {  # matrix of the header -> anti-clockwise turns of what it shows mirrored but upright
    (-1, 0, 0, 1): 0,
    (1, 0, 0, -1): 2,
    (0, 1, 1, 0): 1,
    (0, -1, -1, 0): 3,
}


@pytest.mark.parametrize(("matrix", "quarter_turns"), MIRRORED.items())
@pytest.mark.parametrize("buckets", [1, 2])
def test_of_a_header_that_mirrors_the_turn_is_applied_alone(
    tmp_path, matrix, quarter_turns, buckets
):
    path = write_turned(tmp_path / "a.mp4", quarter_turns)
    set_matrix(path, matrix)
    both = (Bucket(8, 32, 48), Bucket(8, 48, 32))
    (clip,) = read_clips(path, dataclasses.replace(SPEC, buckets=both[:buckets]))
    assert clip.shape[1:3] == (32, 48) and all(is_upright(frame) for frame in clip)
    assert [read_index(frame) for frame in clip] == nearest(np.arange(40) / 30)


def test_colours_survive(tmp_path):
    """Mean colours of the lower corners; a wrong matrix or range moves them by 15 and more."""
    path = write_video(tmp_path / "a.mp4", 40, options={"crf": "10"}, pix_fmt="yuv444p")
    (clip,) = read_clips(path, SPEC)
    np.testing.assert_allclose(clip[0, -5:-1, 2:22].mean((0, 1)), (220, 30, 30), atol=4)
    np.testing.assert_allclose(clip[0, -5:-1, 26:46].mean((0, 1)), (30, 30, 220), atol=4)


def test_pixels_that_are_not_square_are_stretched_before_the_crop(tmp_path):
    """48x64 stored pixels, each twice as wide as high, show a picture of 96x64."""
    path = write_video(tmp_path / "a.mp4", 40, size=(64, 48), aspect=Fraction(2))
    (found,) = indices(path)
    assert found == nearest(np.arange(40) / 30), "all eight stripes are inside the crop"


def test_the_resize_is_pillows_antialiased_bicubic_of_the_centre_crop():
    frame = np.random.default_rng(0).integers(0, 256, (60, 120, 3), dtype=np.uint8)
    for crop, height, width in ((frame, 20, 40), (frame[:, 30:90], 20, 20)):
        expected = np.asarray(
            Image.fromarray(crop).resize((width, height), Image.Resampling.BICUBIC)
        )
        found = resize_frame(frame, Fraction(1), height, width)
        # Beside the crop's left and right edge the kernel sees the pixels behind them.
        np.testing.assert_array_equal(found[:, 2:-2], expected[:, 2:-2])
    assert crop_box(100, 50, Fraction(1), 10, 20) == (37.5, 0.0, 62.5, 50.0)
    assert crop_box(100, 50, Fraction(1, 2), 10, 10) == (0.0, 0.0, 100.0, 50.0)
    # Antialiased: a fine checkerboard becomes flat grey, not a pattern of its own.
    board = 255 * (np.indices((64, 64)).sum(0) % 2)[..., None].repeat(3, -1).astype(np.uint8)
    assert np.ptp(resize_frame(board, Fraction(1), 8, 8)) <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    ("box", "height", "width"),
    [
        ((0.0, 0.0, 90.0, 61.0), 20, 30),
        ((14.5, 0.25, 75.5, 60.75), 16, 16),
        ((30.0, 20.0, 41.0, 31.0), 33, 44),  # enlarged
        ((0.0, 0.0, 90.0, 61.0), 61, 90),  # as it is
        ((40.25, 0.0, 91.0, 61.0), 8, 7),  # half-width chroma that lies on the first column
        ((89.0, 60.0, 90.0, 61.0), 1, 1),
    ],
)
def test_planes_are_resized_as_pillow_resizes_floats(dtype, box, height, width):
    rng = np.random.default_rng(0)
    plane = (rng.random((61, 90)) * (255 if dtype == np.uint8 else 65_535)).astype(dtype)
    wide = np.pad(plane, ((0, 0), (0, int(box[2] > 90))), mode="edge").astype(np.float32)
    expected = np.asarray(
        Image.fromarray(wide).resize((width, height), Image.Resampling.BICUBIC, box=box)
    )
    found = resize_plane(plane, box, height, width)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6 * plane.max(), rtol=0)


def write_bytes(path, content):
    path.write_bytes(content)
    return path


def cut(path, share):
    content = path.read_bytes()
    return write_bytes(path, content[: int(share * len(content))])


def noisy_video(path, **kwargs):
    """A long file with most bytes in its frames."""
    return write_video(path, 90, size=(128, 192), options={"g": "12", "crf": "1"}, **kwargs)


def test_zero_bytes_are_an_empty_file(tmp_path):
    assert reason(write_bytes(tmp_path / "a.mp4", b"")) == "empty_file"


def test_text_with_a_videos_name_is_unreadable(tmp_path):
    assert reason(write_bytes(tmp_path / "a.mp4", b"no video at all\n" * 99)) == "unreadable"


def test_a_wrong_extension_does_not_matter(tmp_path):
    path = write_video(tmp_path / "a.avi", 40, container_format="webm", codec="libvpx-vp9")
    (found,) = indices(path)
    assert found == nearest(np.arange(40) / 30)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_title_that_is_not_utf_8_does_not_matter(tmp_path, name):
    path = write_video(tmp_path / name, 40, codec="mpeg4", title="TITLEXXXX")
    title = b"TITLEXXXX"  # as many bytes as what takes its place: other lengths break the file
    content = path.read_bytes()
    assert title in content
    (found,) = indices(write_bytes(path, content.replace(title, b"\xe9t\xe9 XXXXX")))
    assert found == nearest(np.arange(40) / 30)


def test_times_that_are_made_up_are_noticed(tmp_path):
    """AVI stores no presentation times: with H.264's B-frames the library's guesses are wrong."""
    path = write_video(tmp_path / "a.avi", 40, options={"bf": "2"})
    assert reason(path) == "no_timestamps"
    path = write_video(tmp_path / "b.avi", 40, options={"bf": "0"})
    (found,) = indices(path)
    assert found == nearest(np.arange(40) / 30)


def test_sound_alone_has_no_video_stream(tmp_path):
    assert reason(write_sound(tmp_path / "a.mp4")) == "no_video_stream"


def test_a_few_frames_are_too_short(tmp_path):
    assert reason(write_video(tmp_path / "a.mp4", 5)) == "too_short"
    assert reason(write_video(tmp_path / "b.mp4", 1)) == "too_short"


def test_a_slow_video_is_refused_for_its_rate(tmp_path):
    assert reason(write_video(tmp_path / "a.mp4", 40, fps=4)) == "rate_too_low"


def test_a_still_passage_costs_the_clips_that_show_it_alone(tmp_path):
    """Pictures for 4 s, none for 4 s, pictures for 4 s: of six clips of 2 s two show no other."""
    times = [40 * i for i in range(100)] + [8000 + 40 * i for i in range(100)]
    path = write_video(tmp_path / "a.mp4", times_ms=times, options=SECOND_GROUP)
    clips = indices(path, dataclasses.replace(SPEC, clips_per_video=6))
    assert len(clips) == 4 and clips[1][-1] < 100 <= clips[2][0]
    with pytest.raises(BadClipError, match=r"no other picture for 4\.0 s") as bad:
        read_clips(path, SPEC)
    assert bad.value.reason == "rate_too_low"


def test_an_mp4_cut_after_its_header_is_truncated(tmp_path):
    path = noisy_video(tmp_path / "a.mp4", container_options=FASTSTART)
    assert len(indices(path)) == 1, "whole, it is fine"
    assert reason(cut(path, 0.7)) == "truncated"


def test_a_webm_that_is_cut_is_truncated(tmp_path):
    path = write_video(tmp_path / "a.webm", 90, codec="libvpx-vp9", options={"g": "12"})
    assert reason(cut(path, 0.6)) == "truncated"


def test_an_mp4_cut_before_its_header_is_unreadable(tmp_path):
    assert reason(cut(noisy_video(tmp_path / "a.mp4"), 0.7)) == "unreadable"


def test_damaged_frames_are_corrupt(tmp_path):
    path = noisy_video(tmp_path / "a.mp4", container_options=FASTSTART)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat")
    middle = (start + len(content)) // 2
    for i in range(middle - 3000, middle + 3000):
        content[i] ^= 0x5A
    assert reason(write_bytes(path, bytes(content))) == "corrupt"


def test_a_key_frame_behind_everything_that_is_shown_is_corrupt(tmp_path):
    path = write_video(tmp_path / "a.mp4", 80)
    content = bytearray(path.read_bytes())
    offset = content.index(b"ctts") + 16  # of the first frame's presentation behind its decoding
    struct.pack_into(">i", content, offset, 0x5B000000)
    write_bytes(path, bytes(content))
    both = dataclasses.replace(SPEC, buckets=(Bucket(8, 32, 48), Bucket(8, 48, 32)))
    assert reason(path) == reason(path, both) == "corrupt"


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.ts", "libx264")]
)
def test_random_damage_gives_a_clip_or_a_reason_and_nothing_else(tmp_path, name, codec):
    whole = write_video(tmp_path / name, 60, codec=codec, options={"g": "12"}).read_bytes()
    rng = np.random.default_rng(7)
    outcomes = []
    for trial in range(60):
        content = np.frombuffer(whole, np.uint8).copy()
        end = (len(content), 3000)[trial % 2]  # everywhere, or in the header
        places = rng.integers(0, min(end, len(content)), size=(1, 5, 30, 200)[trial % 4])
        content[places] = rng.integers(0, 256, len(places))
        try:
            outcomes.append(len(read_clips(write_bytes(tmp_path / name, content.tobytes()), SPEC)))
        except BadClipError as bad:
            outcomes.append(bad.reason)
    assert len(set(outcomes)) > 3, "the damage must differ"


def test_caps_are_checked_before_anything_is_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 60)
    monkeypatch.setattr("tpdiff_jax.preparation.video_decode._decode", None)
    assert reason(path, dataclasses.replace(SPEC, max_seconds=1.5)) == "too_long"
    assert reason(path, dataclasses.replace(SPEC, max_pixels=64 * 96 * 59)) == "too_large"
    with pytest.raises(TypeError, match="NoneType"):  # not capped: it gets as far as decoding
        read_clips(path, dataclasses.replace(SPEC, max_pixels=64 * 96 * 60))


def test_a_playlist_opens_no_other_file(tmp_path):
    """The library would follow it: to any file of this machine, or to an address."""
    write_video(tmp_path / "target.ts", 60)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ntarget.ts\n#EXT-X-ENDLIST\n"
    path = write_bytes(tmp_path / "a.m3u8", playlist.encode())
    with av.open(str(path)) as container:
        assert container.format.name == "hls", "without the rule it is followed"
    assert reason(path) == "unreadable"


def test_reasons_are_known():
    with pytest.raises(KeyError):
        BadClipError("some_other_reason")
