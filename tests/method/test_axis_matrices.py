"""Maps of one axis: D and U as tables by hand, L and the noise factor as matrix identities."""

import numpy as np
import pytest
import scipy.fft

from tpdiff_jax.method.axis_matrices import (
    axis_positions,
    downsampling_matrix,
    largest_eigenvalue,
    noise_factor_matrix,
    upsampling_matrix,
)

LENGTHS = [(16, 4, 2), (16, 2, 1), (16, 8, 2), (21, 4, 2), (21, 2, 1), (17, 8, 2), (9, 8, 1)]
EVERY_U = [
    (*length, downsample, upsample)
    for length in LENGTHS
    for downsample in ("stride", "mean")
    for upsample in ("nearest", "nearest_next", "linear")
] + [(*length, "dct", "dct") for length in LENGTHS]
DCT_LENGTHS = [(16, 4, 2), (16, 2, 1), (16, 8, 1), (21, 4, 2), (21, 2, 1), (9, 8, 1), (12, 6, 2)]


@pytest.mark.parametrize(
    ("num_frames", "stride", "kept"),
    [
        (8, 1, range(8)),
        (8, 4, [0, 4]),
        (16, 8, [0, 8]),
        (21, 4, [0, 4, 8, 12, 16, 20]),
        (21, 2, range(0, 21, 2)),
        (1, 4, [0]),
    ],
)
def test_stride_keeps_every_rth_frame(num_frames, stride, kept):
    matrix = downsampling_matrix(num_frames, stride, "stride")
    np.testing.assert_array_equal(matrix @ np.arange(num_frames), list(kept))
    np.testing.assert_array_equal(matrix.sum(1), 1)


def test_mean_averages_blocks_and_the_last_causal_block_is_one_frame():
    matrix = downsampling_matrix(5, 2, "mean")
    half = 0.5
    expected = [[half, half, 0, 0, 0], [0, 0, half, half, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize(("num_frames", "coarse", "fine"), [(16, 4, 2), (16, 8, 2), (8, 8, 1)])
def test_means_of_means_are_the_longer_means(num_frames, coarse, fine):
    fine_frames = downsampling_matrix(num_frames, fine, "mean")
    again = downsampling_matrix(len(fine_frames), coarse // fine, "mean")
    expected = downsampling_matrix(num_frames, coarse, "mean")
    np.testing.assert_allclose(again @ fine_frames, expected, atol=1e-15)


@pytest.mark.parametrize(
    ("num_frames", "upsample", "source"),
    [
        (8, "nearest", [0, 0, 0, 0, 1, 1, 1, 1]),
        (9, "nearest", [0, 0, 0, 0, 1, 1, 1, 1, 2]),
        (9, "nearest_next", [0, 1, 1, 1, 1, 2, 2, 2, 2]),
        (8, "nearest_next", [0, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_nearest_copies_the_frames_it_says(num_frames, upsample, source):
    matrix = upsampling_matrix(num_frames, 4, 1, "stride", upsample)
    np.testing.assert_array_equal(matrix, np.eye(matrix.shape[1])[source])


@pytest.mark.parametrize(
    ("num_frames", "downsample", "expected"),
    [
        (8, "stride", [[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], *[[0, 1]] * 4]),
        # Block centres 1.5 and 5.5: held before the first and after the last.
        (8, "mean", [[1, 0], [1, 0], [0.875, 0.125], [0.625, 0.375],
                     [0.375, 0.625], [0.125, 0.875], [0, 1], [0, 1]]),
        (5, "stride", [[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1]]),
        # The one-frame last block is centred on its frame, 4; the first on 1.5.
        (5, "mean", [[1, 0], [1, 0], [0.8, 0.2], [0.4, 0.6], [0, 1]]),
    ],
)  # fmt: skip
def test_linear_interpolates_positions_and_holds_at_the_ends(num_frames, downsample, expected):
    matrix = upsampling_matrix(num_frames, 4, 1, downsample, "linear")
    np.testing.assert_allclose(matrix, expected, atol=1e-15)


@pytest.mark.parametrize("case", EVERY_U)
def test_a_still_video_survives_every_u(case):
    np.testing.assert_allclose(upsampling_matrix(*case).sum(1), 1.0, atol=1e-14)


@pytest.mark.parametrize("upsample", ["nearest", "nearest_next", "linear"])
def test_kept_frames_survive_going_up_and_down_again(upsample):
    matrix = upsampling_matrix(21, 4, 2, "stride", upsample)
    np.testing.assert_allclose(matrix[::2], np.eye(6), atol=1e-15)


def test_block_means_undo_repetition():
    down = downsampling_matrix(16, 4, "mean")
    up = upsampling_matrix(16, 4, 1, "mean", "nearest")
    np.testing.assert_allclose(down @ up, np.eye(4), atol=1e-15)


@pytest.mark.parametrize(("length", "coarse", "fine"), DCT_LENGTHS)
def test_dct_cuts_and_pads_scipys_coefficients(length, coarse, fine):
    x = np.random.default_rng(0).standard_normal(length)
    down = downsampling_matrix(length, coarse, "dct")
    kept = len(down)
    assert kept == -(-length // coarse)
    low = scipy.fft.idct(scipy.fft.dct(x, norm="ortho")[:kept], norm="ortho")
    np.testing.assert_allclose(down @ x, low * np.sqrt(kept / length), atol=1e-14)
    np.testing.assert_allclose(down.sum(1), 1.0, atol=1e-14)
    up = upsampling_matrix(length, coarse, fine, "dct", "dct")
    grown = -(-length // fine)
    padded = np.pad(scipy.fft.dct(x[:kept], norm="ortho"), (0, grown - kept))
    expected = scipy.fft.idct(padded, norm="ortho") * np.sqrt(grown / kept)
    np.testing.assert_allclose(up @ x[:kept], expected, atol=1e-14)
    assert largest_eigenvalue(up) == pytest.approx(grown / kept, rel=1e-13)
    # Every direction that U makes has that eigenvalue: the jump adds noise to the rest alone.
    np.testing.assert_allclose(up.T @ up, grown / kept * np.eye(kept), atol=1e-13)


@pytest.mark.parametrize(("length", "coarse", "fine"), DCT_LENGTHS)
def test_dct_up_and_down_again_is_nothing_and_the_detail_is_orthogonal(length, coarse, fine):
    down_fine = downsampling_matrix(length, fine, "dct")
    down_coarse = downsampling_matrix(length, coarse, "dct")
    up = upsampling_matrix(length, coarse, fine, "dct", "dct")
    # D of a stage's own frames: of the stage's length, to the coarser one's.
    again = down_coarse @ upsampling_matrix(length, fine, 1, "dct", "dct")
    np.testing.assert_allclose(again @ up, np.eye(len(down_coarse)), atol=1e-13)
    np.testing.assert_allclose(again @ down_fine, down_coarse, atol=1e-13)
    detail = down_fine - up @ down_coarse
    np.testing.assert_allclose(up.T @ detail, 0.0, atol=1e-13)


def test_dct_by_hand_of_two_frames_to_one_and_back():
    np.testing.assert_allclose(downsampling_matrix(2, 2, "dct"), [[0.5, 0.5]], atol=1e-15)
    up = upsampling_matrix(2, 2, 1, "dct", "dct")
    np.testing.assert_allclose(up, [[1], [1]], atol=1e-15)


@pytest.mark.parametrize(("length", "stride"), [(16, 4), (16, 8), (21, 2), (21, 4), (9, 8), (8, 1)])
def test_a_dct_frame_is_the_smooth_video_read_at_its_position(length, stride):
    kept = -(-length // stride)
    places = axis_positions(length, stride, "dct")
    if length % stride == 0:  # centres of blocks of r
        np.testing.assert_allclose(places, (np.arange(kept) + 0.5) * stride - 0.5, atol=1e-13)
    weights = np.random.default_rng(1).standard_normal(kept)

    def smooth(place):
        return sum(w * np.cos(np.pi * j * (place + 0.5) / length) for j, w in enumerate(weights))

    down = downsampling_matrix(length, stride, "dct")
    np.testing.assert_allclose(down @ smooth(np.arange(length)), smooth(places), atol=1e-12)


@pytest.mark.parametrize("length", [7, 16, 21])
def test_an_axis_that_is_not_pooled_stays_to_the_last_bit(length):
    np.testing.assert_array_equal(downsampling_matrix(length, 1, "dct"), np.eye(length))
    np.testing.assert_array_equal(upsampling_matrix(length, 1, 1, "dct", "dct"), np.eye(length))


@pytest.mark.parametrize("case", EVERY_U)
def test_eigenvalue_is_the_spectral_radius_of_u_u_transposed(case):
    matrix = upsampling_matrix(*case)
    expected = np.linalg.norm(matrix, ord=2) ** 2
    assert largest_eigenvalue(matrix) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("num_frames", "factor", "upsample", "expected"),
    [
        (16, 2, "nearest", 2),
        (16, 8, "nearest", 8),
        (17, 4, "nearest", 4),
        (17, 4, "nearest_next", 4),
        (16, 4, "nearest_next", 7),  # the last kept frame: its own group, and three past it
        (1, 4, "nearest", 1),
    ],
)
def test_eigenvalue_of_copies_is_the_largest_group(num_frames, factor, upsample, expected):
    matrix = upsampling_matrix(num_frames, factor, 1, "stride", upsample)
    assert largest_eigenvalue(matrix) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_eigenvalue_of_linear_is_the_factor_or_that_of_the_end_that_is_held(factor):
    """Of U^T U, a chain of one row whose last link is heavier where frames are kept as they are."""
    w = np.arange(1, factor) / factor  # weights of the frames between two kept ones
    inner, link, held = 1 + 2 * np.sum(w**2), np.sum(w * (1 - w)), factor - 1
    heavier = held - np.sum(w**2)  # at the end frames are copies in place of means
    expected = inner + heavier + link**2 / heavier
    frames = 32 * factor
    stride = upsampling_matrix(frames, factor, 1, "stride", "linear")
    assert largest_eigenvalue(stride) == pytest.approx(expected, rel=1e-9)
    if factor == 2:
        assert expected == pytest.approx(7 / 3)
    blocks = upsampling_matrix(frames, factor, 1, "mean", "linear")
    assert largest_eigenvalue(blocks) == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize("surplus", [1.0, 1.3])
@pytest.mark.parametrize("case", EVERY_U)
def test_noise_factor_is_the_symmetric_root_for_any_large_enough_l(case, surplus):
    up = upsampling_matrix(*case)
    eigenvalue = surplus * largest_eigenvalue(up)
    factor = noise_factor_matrix(up, eigenvalue)
    np.testing.assert_allclose(factor, factor.T, atol=1e-14)
    assert np.linalg.eigvalsh(factor)[0] > -1e-7
    expected = np.eye(len(up)) - up @ up.T / eigenvalue
    np.testing.assert_allclose(factor @ factor, expected, atol=1e-14)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_noise_factor_of_repetition_takes_the_block_mean_away(factor):
    up = upsampling_matrix(16, factor, 1, "stride", "nearest")
    z = np.random.default_rng(0).standard_normal(16)
    blocks = z.reshape(-1, factor)
    expected = (blocks - blocks.mean(1, keepdims=True)).reshape(-1)
    np.testing.assert_allclose(noise_factor_matrix(up, factor) @ z, expected, atol=1e-13)


@pytest.mark.parametrize(
    ("length", "coarse", "fine", "kept"),
    [(8, 4, 2, [0, 2]), (8, 4, 1, [0, 4]), (9, 4, 2, [0, 2, 4]), (17, 8, 4, [0, 2, 4]),
     (5, 4, 1, [0, 4]), (1, 4, 1, [0])],
)  # fmt: skip
def test_insert_keeps_frames_and_makes_nothing_between(length, coarse, fine, kept):
    up = upsampling_matrix(length, coarse, fine, "stride", "insert")
    expected = np.zeros((-(-length // fine), len(kept)))
    for column, row in enumerate(kept):
        expected[row, column] = 1.0
    np.testing.assert_array_equal(up, expected)
    assert largest_eigenvalue(up) == 1.0
    # All noise of kept frames is there, none of new ones.
    new = np.diag(1.0 - expected.sum(1))
    np.testing.assert_array_equal(noise_factor_matrix(up, 1.0), new)


def test_unknown_modes_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"pyramid\.downsample is 'max'.*'stride', 'mean'"):
        downsampling_matrix(8, 2, "max")
    with pytest.raises(ValueError, match=r"pyramid\.upsample is 'cubic'.*'nearest_next'"):
        upsampling_matrix(8, 2, 1, "stride", "cubic")
