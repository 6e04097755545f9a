"""Tracking recovers the true path, and says so when it cannot."""

import numpy as np
import pytest

from tpdiff_jax.data import MovingDigitsSpec, stack_clips
from tpdiff_jax.digits.digit_tracking import track_digits

ONE = MovingDigitsSpec(speed_stratum="all")
TWO = MovingDigitsSpec(frame_size=64, num_digits=2)


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_digit_is_recovered_to_four_thousandths_of_a_pixel(split):
    clips = stack_clips(ONE, split, 0, 256)
    tracks = track_digits(clips["video"], ONE.world)
    assert tracks.seen.all()
    assert np.abs(tracks.centres - clips["path"]).max() < 0.004


def test_scaled_digit_is_recovered_as_well():
    spec = MovingDigitsSpec(frame_size=64)
    clips = stack_clips(spec, "test", 0, 64)
    assert np.abs(track_digits(clips["video"], spec.world).centres - clips["path"]).max() < 0.004


def test_background_haze_and_specks_do_not_move_the_centroid_much():
    clips = stack_clips(ONE, "test", 0, 64)
    video = clips["video"] + 0.04 * np.random.default_rng(0).uniform(size=clips["video"].shape)
    video[:, :, :2, :2] = 0.0  # a speck of two ink in a corner
    error = np.linalg.norm(track_digits(video, ONE.world).centres - clips["path"], axis=-1)
    # The plain centroid of the frame would be off by pixels.
    assert np.median(error) < 0.15


def test_two_digits_are_recovered_where_they_are_apart_and_keep_their_identity():
    clips = stack_clips(TWO, "test", 0, 128)
    tracks = track_digits(clips["video"], TWO.world)
    seen = tracks.seen
    assert 0.5 < seen.mean() < 0.9
    errors = [
        np.linalg.norm(tracks.centres - path, axis=-1)
        for path in (clips["path"], clips["path"][:, :, ::-1])
    ]
    totals = [(error * seen).sum((1, 2)) for error in errors]
    error = np.where((totals[0] <= totals[1])[:, None, None], *errors)[seen]
    assert np.median(error) < 0.004
    assert (error > 1.0).mean() < 0.02


def test_mass_is_the_digits_ink():
    clips = stack_clips(ONE, "test", 0, 32)
    expected = 0.5 * (np.float64(clips["video"]) + 1.0).sum((2, 3, 4))
    np.testing.assert_allclose(
        track_digits(clips["video"], ONE.world).mass[..., 0], expected, rtol=1e-5
    )


def test_crops_are_the_same_wherever_the_digit_is_on_whole_pixels():
    video = np.full((1, 2, 32, 32, 1), -1.0, np.float32)
    glyph = np.random.default_rng(0).uniform(size=(6, 6))
    video[0, 0, 4:10, 5:11, 0] = 2 * glyph - 1
    video[0, 1, 20:26, 17:23, 0] = 2 * glyph - 1
    crops = track_digits(video, ONE.world).crops[0, :, 0]
    np.testing.assert_allclose(crops[0], crops[1], atol=1e-5)
    assert crops[0].sum() == pytest.approx(glyph.sum(), rel=1e-4)


@pytest.mark.parametrize("spec", [ONE, TWO])
def test_frames_without_a_digit_are_unseen(spec):
    size = spec.frame_size
    for value in (-1.0, np.nan, -np.inf, np.inf):
        tracks = track_digits(np.full((2, 4, size, size, 1), value), spec.world)
        assert not tracks.seen.any() and not tracks.visible.any()
        for field in (tracks.centres, tracks.mass, tracks.crops):
            assert np.isfinite(field).all()


def test_wrong_shapes_are_refused():
    for shape in ((2, 4, 16, 32, 1), (4, 32, 32, 1), (0, 4, 32, 32, 1)):
        with pytest.raises(ValueError, match="videos have shape"):
            track_digits(np.zeros(shape), ONE.world)
