"""Patches: a bijection of pixels, frame by frame, each at the place that its pixels have."""

import jax
import numpy as np
import pytest

from tpdiff_jax.models.layers.patching import (
    frames_to_patches,
    num_patches,
    patch_positions,
    patches_to_frames,
)
from tpdiff_jax.types import Positions

FRAMES = np.array([0.0, 2.0], np.float32)


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


def means_of(length, stride):
    """Where the means of `stride` neighbours stand."""
    return np.arange(length).reshape(-1, stride).mean(1).astype(np.float32)


@pytest.mark.parametrize("patch_size", [1, 2, 3, 8])
def test_patches_of_full_size_stand_at_their_index_exactly(patch_size):
    full = Positions(FRAMES, *(np.arange(n * patch_size, dtype=np.float32) for n in (40, 24)))
    patches = patch_positions(full, patch_size)
    assert patches.rows.dtype == patches.columns.dtype == np.float64
    np.testing.assert_array_equal(patches.rows, np.repeat(np.arange(40), 24))
    np.testing.assert_array_equal(patches.columns, np.tile(np.arange(24), 40))
    assert patches.frames is FRAMES


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_a_coarse_patch_stands_at_the_centre_of_the_fine_ones_that_it_covers(patch_size):
    height, width = 4 * patch_size, 8 * patch_size
    fine = Positions(FRAMES, means_of(height, 1), means_of(width, 1))
    coarse = Positions(FRAMES, means_of(height, 2), means_of(width, 2))
    fine, coarse = (patch_positions(p, patch_size) for p in (fine, coarse))
    for name in ("rows", "columns"):
        grid = getattr(fine, name).reshape(2, 2, 4, 2)  # [coarse row, 2, coarse column, 2]
        np.testing.assert_array_equal(getattr(coarse, name), grid.mean((1, 3)).ravel())


def test_traced_positions_give_the_static_ones_in_float32():
    static = Positions(FRAMES, means_of(8, 2), means_of(12, 2))
    traced = jax.jit(lambda p: patch_positions(p, 2))(static)
    for name in ("rows", "columns"):
        assert getattr(traced, name).dtype == np.float32
        expected = getattr(patch_positions(static, 2), name)
        np.testing.assert_array_equal(getattr(traced, name), expected)


def test_the_number_of_patches_is_that_of_one_frame():
    assert num_patches((16, 48, 80), 2) == 24 * 40
    assert num_patches((4, 12, 20), 2) == 6 * 10
