"""MP4 and GIF: what is written is what a player decodes."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from tpdiff_jax.files import media


def _moving_square(num_frames=6, side=32, channels=1):
    video = np.zeros((num_frames, side, side, channels), np.uint8)
    for i in range(num_frames):
        video[i, 8:16, 3 * i : 3 * i + 8] = 255
    return video


def _decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)])
        codec = stream.codec_context
        return frames, (codec.name, codec.pix_fmt, stream.average_rate)


def test_to_uint8_maps_the_range_ends_and_clips_beyond():
    pixels = np.array([-1.0, 0.0, 1.0, -3.0, 7.0, np.nan, np.inf, -np.inf, 1 / 127.5])
    expected = [0, 128, 255, 0, 255, 0, 255, 0, 128]  # 127.5 rounds to even
    np.testing.assert_array_equal(media.to_uint8(pixels), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_mp4_plays_back_the_frames_enlarged_by_a_whole_factor(tmp_path, channels):
    video = _moving_square(channels=channels)
    media.write_mp4(tmp_path / "new" / "a.mp4", video, fps=8, min_side=64)
    frames, coding = _decoded(tmp_path / "new" / "a.mp4")
    assert frames.shape == (6, 64, 64, 3)
    assert coding == ("h264", "yuv420p", 8)
    expected = video.repeat(2, axis=1).repeat(2, axis=2)
    assert np.abs(frames.astype(int) - expected.astype(int)).mean() < 2
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.mp4"]  # no temporary left


def test_an_mp4_of_odd_sides_is_doubled_because_420_needs_even_ones(tmp_path):
    media.write_mp4(tmp_path / "a.mp4", np.zeros((2, 33, 35, 3), np.uint8), min_side=1)
    assert _decoded(tmp_path / "a.mp4")[0].shape == (2, 66, 70, 3)


def test_frames_that_are_large_enough_are_not_enlarged():
    video = _moving_square(side=64)
    np.testing.assert_array_equal(media.enlarge(video, 64), video)
    assert media.enlarge(video, 65).shape == (6, 128, 128, 1)


def test_a_gif_grid_shows_every_video_in_row_order():
    videos = np.stack([_moving_square(), 255 - _moving_square(), _moving_square()[::-1]])
    gif = Image.open(io.BytesIO(media.gif_grid(videos, min_side=32, num_columns=2)))
    assert gif.n_frames == 6
    assert gif.info["loop"] == 0 and gif.info["duration"] == 120  # 1/8 s in whole hundredths
    for frame in range(6):
        gif.seek(frame)
        page = np.asarray(gif.convert("L"))
        assert page.shape == (2 * 36 + 4, 2 * 36 + 4)
        for index, (top, left) in enumerate([(4, 4), (4, 40), (40, 4)]):
            cell = page[top : top + 32, left : left + 32]
            np.testing.assert_array_equal(cell, videos[index, frame, :, :, 0])


def test_captions_stand_below_their_video_and_are_cut_to_its_width():
    videos = _moving_square()[None].repeat(2, axis=0)
    plain = Image.open(io.BytesIO(media.gif_grid(videos, min_side=64)))
    page = Image.open(io.BytesIO(media.gif_grid(videos, captions=["7", "x" * 99], min_side=64)))
    assert page.height > plain.height and page.width == plain.width
    below = np.asarray(page.convert("L"))[4 + 64 : -4]
    assert (below[:, 4:68] > 200).any() and (below[:, 72:136] > 200).any()
    assert not (below[:, 68:72] > 200).any()  # the long one ends before its neighbour


def test_write_gif_grid_writes_what_gif_grid_encodes(tmp_path):
    videos = _moving_square(channels=3)[None]
    media.write_gif_grid(tmp_path / "grid.gif", videos, fps=10)
    assert (tmp_path / "grid.gif").read_bytes() == media.gif_grid(videos, fps=10)


@pytest.mark.parametrize(
    "video",
    [
        np.zeros((2, 4, 4, 1), np.float32),
        np.zeros((2, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 2), np.uint8),
        np.zeros((0, 4, 4, 1), np.uint8),
    ],
)
def test_other_types_and_shapes_are_refused(tmp_path, video):
    with pytest.raises(ValueError, match="video"):
        media.write_mp4(tmp_path / "a.mp4", video)
    with pytest.raises(ValueError, match="video"):
        media.gif_grid(video[None])
    assert not list(tmp_path.iterdir())


def test_a_wrong_number_of_captions_is_refused():
    with pytest.raises(ValueError, match="captions: got 1 for 2 videos"):
        media.gif_grid(np.zeros((2, 2, 4, 4, 1), np.uint8), captions=["one"])
