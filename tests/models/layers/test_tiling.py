"""Tiles: exact where a network looks no farther than they overlap, seamless elsewhere."""

import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.models.layers.tiling import Tiles, in_tiles

X = np.random.default_rng(0).standard_normal((1, 2, 12, 20, 3)).astype(np.float32)


def blurred(x):
    """Mean over 3 x 3 pixels, with the border repeated: sees one pixel far."""
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    shifted = [padded[:, :, i : i + x.shape[2], j : j + x.shape[3]] for i in range(3)
               for j in range(3)]  # fmt: skip
    return sum(shifted) / 9.0


def enlarged(x):
    return x.repeat(4, axis=2).repeat(4, axis=3)


def reduced(x):
    return x[:, :, ::4, ::4]


@pytest.mark.parametrize("tiles", [Tiles(side=8, overlap=4), Tiles(side=16, overlap=8)])
@pytest.mark.parametrize("network", [lambda x: 2.0 * x, enlarged, reduced])
def test_pointwise_networks_are_exact_whatever_their_scale(network, tiles):
    np.testing.assert_allclose(in_tiles(network, X, tiles), network(X), atol=1e-6)


def test_a_network_that_sees_one_pixel_far_errs_at_the_borders_of_tiles_only():
    error = np.abs(in_tiles(blurred, X, Tiles(side=8, overlap=4)) - blurred(X))
    rows, columns = [4, 7], [4, 7, 8, 11, 12, 15]  # borders that are not the frame's
    inside = np.delete(np.delete(error, rows, axis=2), columns, axis=3)
    np.testing.assert_allclose(inside, 0.0, atol=1e-6)
    without_overlap = np.abs(in_tiles(blurred, X, Tiles(side=4, overlap=0)) - blurred(X))
    assert 0.0 < error.max() < 0.5 * without_overlap.max()


def test_a_constant_stays_a_constant():
    ones = jnp.ones((1, 1, 9, 11, 1))
    np.testing.assert_allclose(
        in_tiles(lambda x: x, ones, Tiles(side=5, overlap=2)), 1.0, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("side", "overlap", "expected"),
    [(8, 4, [0, 4, 8, 12]), (8, 2, [0, 6, 12]), (16, 8, [0, 4]), (20, 0, [0]), (8, 0, [0, 8, 12])],
)
def test_tiles_cover_the_axis_and_end_with_it(side, overlap, expected):
    assert Tiles(side=side, overlap=overlap).starts(20) == expected


@pytest.mark.parametrize(("side", "overlap"), [(8, 8), (8, -1), (0, 0)])
def test_impossible_tiles_are_refused(side, overlap):
    with pytest.raises(ValueError, match="tiles.overlap must be at least 0 and below tiles.side"):
        Tiles(side=side, overlap=overlap)
