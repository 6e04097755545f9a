"""Strides, shapes and modes: what passes, and what is refused by its config name."""

import numpy as np
import pytest

from tpdiff_jax.method.strides import (
    check_shape,
    downsample_modes,
    stage_strides,
    upsample_modes,
)


@pytest.mark.parametrize("strides", [(1,), (2, 1), (4, 2, 1), (8, 4, 2, 1), (8, 2, 1), (6, 3, 1)])
def test_one_number_is_a_stride_over_time(strides):
    assert stage_strides(strides) == tuple((r, 1, 1) for r in strides)


@pytest.mark.parametrize(
    "strides",
    [
        ((1, 4, 4), (1, 2, 2), (1, 1, 1)),
        ((4, 4, 4), (2, 2, 2), (1, 1, 1)),
        ((4, 2, 1), (4, 1, 1), (1, 1, 1)),
        ((2, 1, 3), (1, 1, 3), (1, 1, 1)),
        [[2, 2, 2], np.array([1, 1, 1])],
    ],
)
def test_three_numbers_are_strides_over_time_height_and_width(strides):
    got = stage_strides(strides)
    assert got == tuple(tuple(int(r) for r in entry) for entry in strides)
    assert all(type(r) is int for entry in got for r in entry)
    hash(got)


def test_numbers_and_triples_mix():
    assert stage_strides([(4, 2, 2), 2, 1]) == ((4, 2, 2), (2, 1, 1), (1, 1, 1))


@pytest.mark.parametrize(
    "strides",
    [
        (), (2,), (4, 2), (1, 2), (4, 3, 1), (2, 2, 1), (4, 0, 1), (0,), (-2, 1), 4, None, "421",
        (2.0, 1), (True,), ((2, 2), (1, 1)), ((2, 2, 2, 2), (1, 1, 1, 1)), ((2, "2", 2), 1),
        ((1, 4, 4), (1, 3, 3), (1, 1, 1)), ((2, 1, 1), (1, 2, 1), (1, 1, 1)),
        ((1, 2, 2), (1, 2, 2), (1, 1, 1)), ((2, 2, 2), (1, 1, 2)), ((1, 1, 1), (1, 1, 1)),
    ],
)  # fmt: skip
def test_other_strides_are_refused_by_name(strides):
    with pytest.raises(ValueError, match=r"^pyramid\.strides is .*allowed"):
        stage_strides(strides)


@pytest.mark.parametrize(
    ("num_frames", "stride"), [(16, 4), (17, 4), (4, 4), (1, 4), (7, 1), (1, 1)]
)
def test_lengths_that_fit_pass(num_frames, stride):
    assert check_shape((num_frames, 3, 5), (stride, 1, 1)) == (num_frames, 3, 5)


@pytest.mark.parametrize(("num_frames", "stride"), [(18, 4), (15, 4), (0, 4), (0, 1), (-4, 4)])
def test_other_lengths_are_refused(num_frames, stride):
    with pytest.raises(ValueError, match=r"data\.num_frames"):
        check_shape((num_frames, 1, 1), (stride, 1, 1))


@pytest.mark.parametrize(
    ("shape", "name"),
    [((8, 9, 8), "height"), ((8, 8, 6), "width"), ((8, 0, 8), "height"), ((8, 8, 1), "width")],
)
def test_one_row_or_column_more_is_not_allowed_in_space(shape, name):
    with pytest.raises(ValueError, match=rf"^{name}"):
        check_shape(shape, (4, 4, 4))


@pytest.mark.parametrize("shape", [16, (16,), (16, 8), (16, 8, 8, 3), "big", (16.0, 8, 8)])
def test_other_than_three_whole_numbers_is_no_shape(shape):
    with pytest.raises(ValueError, match=r"(shape|data\.num_frames) is"):
        check_shape(shape, (1, 1, 1))


def test_one_mode_is_for_all_axes_and_three_are_for_one_each():
    assert downsample_modes("mean") == ("mean", "mean", "mean")
    assert downsample_modes(["stride", "mean", "mean"]) == ("stride", "mean", "mean")
    assert upsample_modes("linear", (2, 2, 2)) == ("linear", "linear", "linear")
    assert upsample_modes(("nearest_next", "linear", "nearest"), (2, 2, 2)) == (
        "nearest_next", "linear", "nearest")  # fmt: skip


def test_nearest_next_is_for_time_only():
    assert upsample_modes("nearest_next", (4, 1, 1)) == ("nearest_next", "nearest", "nearest")
    for mode, largest in (
        ("nearest_next", (4, 2, 2)),
        (("nearest", "nearest_next", "nearest"), (4, 1, 1)),
        (("nearest", "nearest", "nearest_next"), (4, 1, 1)),
    ):
        with pytest.raises(ValueError, match=r"^pyramid\.upsample_space is 'nearest_next'.*linear"):
            upsample_modes(mode, largest)


@pytest.mark.parametrize("mode", ["max", ("mean",), ("mean", "mean"), 3, ("mean", "max", "mean")])
def test_other_modes_are_refused_by_name(mode):
    with pytest.raises(ValueError, match=r"^pyramid\.downsample(_space)? is"):
        downsample_modes(mode)
    with pytest.raises(ValueError, match=r"^pyramid\.upsample(_space)? is"):
        upsample_modes(mode, (1, 1, 1))
