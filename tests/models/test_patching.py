"""Patches: a bijection of pixels, frame by frame."""

import numpy as np

from tpdiff_jax.models.patching import frames_to_patches, patches_to_frames


def test_round_trip_is_the_identity_on_oblong_frames():
    video = np.random.default_rng(0).standard_normal((2, 3, 8, 12, 2))
    patches = frames_to_patches(video, 4)
    assert patches.shape == (2, 3, 6, 32)
    np.testing.assert_array_equal(patches_to_frames(patches, 4, num_rows=2), video)


def test_tokens_are_row_major_and_patches_are_row_column_channel():
    video = np.arange(4 * 6 * 2).reshape(1, 1, 4, 6, 2)
    patches = frames_to_patches(video, 2)
    np.testing.assert_array_equal(patches[0, 0, 0], video[0, 0, 0:2, 0:2].ravel())
    np.testing.assert_array_equal(patches[0, 0, 1], video[0, 0, 0:2, 2:4].ravel())
    np.testing.assert_array_equal(patches[0, 0, 3], video[0, 0, 2:4, 0:2].ravel())


def test_frames_do_not_mix():
    video = np.zeros((1, 3, 4, 4, 1))
    video[:, 1] = 1.0
    patches = frames_to_patches(video, 2)
    np.testing.assert_array_equal(patches[0].mean(axis=(1, 2)), [0.0, 1.0, 0.0])
