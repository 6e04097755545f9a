"""The drawing kernel and the bouncing law, against hand arithmetic."""

import numpy as np
import pytest

from tpdiff_jax.digits import digit_physics
from tpdiff_jax.digits.digit_physics import (
    DigitWorld,
    bouncing_path,
    hat_weights,
    load_glyphs,
    reflect,
)


def test_reflect_is_the_triangle_wave():
    x = [-3.0, 2.0, 5.0, 10.0, 13.0, 18.0, 21.0, 27.0]
    np.testing.assert_allclose(reflect(x, 2.0, 10.0), [7, 2, 5, 10, 7, 2, 5, 9])


def test_a_bounce_reverses_the_velocity_and_keeps_the_position_law():
    world = DigitWorld()  # walls at 4.75 and 26.25
    assert (world.low, world.high) == (4.75, 26.25)
    path = bouncing_path(np.array([10.0, 25.0]), np.array([0.0, 2.0]), 4, world)
    # 25, 27 -> 25.5, 29 -> 23.5, 31 -> 21.5
    np.testing.assert_allclose(path, [[10, 25], [10, 25.5], [10, 23.5], [10, 21.5]])


def test_hat_weights_sum_to_one_and_average_to_the_position():
    p = np.linspace(3.0, 12.0, 37)
    for width in (1.0, 2.0):
        weights = hat_weights(p, 16, width)
        np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-12)
        np.testing.assert_allclose(weights @ np.arange(16), p, rtol=1e-12)


def test_no_glyph_reaches_beyond_the_documented_reach():
    for split in ("train", "test"):
        glyphs = load_glyphs(split)
        for axis in (0, 1):
            ink = glyphs.images.sum(2 - axis) > 0
            distance = np.abs(np.arange(8) - glyphs.centroids[:, axis, None])
            assert (distance * ink).max() < digit_physics.GLYPH_REACH


def test_other_pixels_than_the_frozen_ones_are_refused(monkeypatch):
    monkeypatch.setattr(digit_physics, "GLYPHS_SHA256", "0" * 64)
    load_glyphs.cache_clear()
    with pytest.raises(RuntimeError, match="SHA-256"):
        load_glyphs("train")


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"num_digits": 0}, "data.num_digits"),
        ({"digit_scale": 0}, "data.digit_scale"),
        ({"frame_size": 31, "digit_scale": 2}, "data.frame_size"),
    ],
)
def test_impossible_worlds_are_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        DigitWorld(**kwargs)


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="train, test"):
        load_glyphs("val")
