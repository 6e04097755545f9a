"""Maps over time, height and width: against the Kronecker product of the axes' matrices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.method.gaussian_world import kron3, symmetric_root
from tpdiff_jax.method.axis_matrices import upsampling_matrix
from tpdiff_jax.method.resampling import (
    NoiseFactor,
    Resampling,
    downsampling,
    noise_factor,
    product_eigenvalue,
    upsampling,
)

SHAPE = (9, 4, 6)
STRIDES = ((4, 2, 3), (1, 1, 1))
DOWN = ("stride", "mean", "mean")
UPS = list(itertools.product(("nearest", "nearest_next", "linear"), ("nearest", "linear")))


def of_frames(matrix, size=(2, 4)):
    return Resampling(matrices=(matrix, *(np.eye(length) for length in size)))


def matrix_of(function, shape):
    """The matrix of a linear function of videos of this shape, all pixels in one column."""
    size = int(np.prod(shape))
    out = function(jnp.eye(size).reshape(size, *shape, 1))
    return np.asarray(out, np.float64).reshape(size, -1).T


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("upsample", ["nearest", "linear"])
def test_resampling_over_time_leaves_the_other_axes(lead, upsample):
    up = upsampling_matrix(9, 4, 1, "stride", upsample)
    x = np.random.default_rng(0).standard_normal((*lead, 3, 2, 4, 1)).astype(np.float32)
    got = jax.jit(of_frames(up))(x)
    expected = np.moveaxis(np.tensordot(up, x, axes=(1, len(lead))), 0, len(lead))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got.dtype == jnp.float32


def test_copies_are_bit_exact_along_every_axis_in_any_precision():
    x = jax.random.normal(jax.random.key(0), (2, 3, 2, 2, 1)).astype(jnp.bfloat16)
    up = upsampling((9, 4, 4), (4, 2, 2), (1, 1, 1), DOWN, ("nearest",) * 3)
    got = up(x)
    assert got.dtype == jnp.bfloat16
    pairs = [0, 0, 1, 1]
    expected = np.asarray(x)[:, [0, 0, 0, 0, 1, 1, 1, 1, 2]][:, :, pairs][:, :, :, pairs]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_inserted_frames_are_zeros_and_kept_ones_exact(dtype):
    x = jax.random.normal(jax.random.key(0), (2, 3, 2, 4, 1)).astype(dtype).at[0, 1].set(jnp.nan)
    up = of_frames(upsampling_matrix(9, 4, 2, "stride", "insert"))
    assert up(x).dtype == dtype and "dot_general" not in str(jax.make_jaxpr(up)(x))
    got, x = np.asarray(up(x), np.float32), np.asarray(x, np.float32)
    np.testing.assert_array_equal(got[:, ::2], x)
    np.testing.assert_array_equal(got[:, 1::2], 0)  # a lost frame next door or not


def test_an_axis_that_stays_costs_nothing():
    same = of_frames(np.eye(3))
    x = jnp.ones((2, 3, 2, 4, 1))
    assert same.moved_axes == () and same(x) is x
    only_width = downsampling((3, 2, 4), (1, 1, 2), ("mean",) * 3)
    assert only_width.moved_axes == (2,)
    assert str(jax.make_jaxpr(only_width)(x)).count("dot_general") == 1


@pytest.mark.parametrize("ups", UPS)
def test_separable_maps_are_the_kronecker_product_of_their_axes(ups):
    time, space = ups
    up = upsampling(SHAPE, *STRIDES, DOWN, (time, space, space))
    coarse = tuple(matrix.shape[1] for matrix in up.matrices)
    np.testing.assert_allclose(matrix_of(up, coarse), kron3(up.matrices), atol=1e-6)
    down = downsampling(SHAPE, STRIDES[0], DOWN)
    np.testing.assert_allclose(matrix_of(down, SHAPE), kron3(down.matrices), atol=1e-6)


@pytest.mark.parametrize("ups", UPS)
def test_the_eigenvalue_of_a_product_is_the_product_of_the_axes(ups):
    time, space = ups
    up = upsampling(SHAPE, *STRIDES, DOWN, (time, space, space))
    expected = np.linalg.norm(kron3(up.matrices), ord=2) ** 2
    assert product_eigenvalue(up) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("surplus", [1.0, 1.3])
@pytest.mark.parametrize("ups", UPS)
def test_separable_noise_factor_is_the_root_of_the_full_matrix(ups, surplus):
    """9 frames, 4 x 6 pixels: against the root by all 216 eigenvectors."""
    time, space = ups
    up = upsampling(SHAPE, *STRIDES, DOWN, (time, space, space))
    eigenvalue = surplus * product_eigenvalue(up)
    full = kron3(up.matrices)
    square = np.eye(len(full)) - full @ full.T / eigenvalue
    with jax.enable_x64(True):
        factor = noise_factor(up, eigenvalue)
        assert isinstance(factor, NoiseFactor)
        got = matrix_of(factor, SHAPE)
    np.testing.assert_allclose(got @ got.T, square, atol=1e-12)
    # At a surplus of 1 one eigenvalue of the square is 0, whose root is sharp to 1e-8 only.
    np.testing.assert_allclose(got, symmetric_root(square), atol=2e-9 if surplus > 1 else 1e-7)
    np.testing.assert_allclose(matrix_of(factor, SHAPE), got, atol=2e-6)


def test_noise_factor_of_linear_in_time_and_copies_in_space_is_the_full_root_to_2e_9():
    up = upsampling(SHAPE, *STRIDES, DOWN, ("linear", "nearest", "nearest"))
    eigenvalue = product_eigenvalue(up)
    full = kron3(up.matrices)
    left, singular, _ = np.linalg.svd(full, full_matrices=False)
    weights = np.sqrt(np.maximum(1.0 - singular**2 / eigenvalue, 0.0)) - 1.0
    expected = np.eye(len(full)) + (left * weights) @ left.T
    with jax.enable_x64(True):
        got = matrix_of(noise_factor(up, eigenvalue), SHAPE)
    np.testing.assert_allclose(got, expected, atol=2e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_of_one_axis_the_noise_factor_is_one_matrix_less_the_block_mean(axis):
    strides = [1, 1, 1]
    strides[axis] = 2
    up = upsampling((4, 4, 4), tuple(strides), (1, 1, 1), ("stride",) * 3, ("nearest",) * 3)
    factor = noise_factor(up, 2.0)
    assert isinstance(factor, Resampling) and factor.moved_axes == (axis,)
    z = np.random.default_rng(0).standard_normal((4, 4, 4, 1)).astype(np.float32)
    pairs = np.moveaxis(z, axis, 0).reshape(2, 2, 4, 4, 1)
    expected = np.moveaxis((pairs - pairs.mean(1, keepdims=True)).reshape(4, 4, 4, 1), 0, axis)
    np.testing.assert_allclose(factor(jnp.asarray(z)), expected, atol=1e-6)


def test_copies_in_all_axes_leave_the_noise_less_its_block_mean():
    up = upsampling((4, 4, 4), (2, 2, 2), (1, 1, 1), ("stride",) * 3, ("nearest",) * 3)
    z = np.random.default_rng(0).standard_normal((3, 4, 4, 4, 2)).astype(np.float32)
    blocks = z.reshape(3, 2, 2, 2, 2, 2, 2, 2)  # pairs of frames, rows, columns
    expected = (blocks - blocks.mean((2, 4, 6), keepdims=True)).reshape(z.shape)
    assert product_eigenvalue(up) == pytest.approx(8.0, rel=1e-14)
    np.testing.assert_allclose(noise_factor(up, 8.0)(jnp.asarray(z)), expected, atol=1e-6)


def test_half_precision_noise_is_worked_on_in_float32():
    up = upsampling((4, 4, 4), (2, 2, 2), (1, 1, 1), ("stride",) * 3, ("nearest",) * 3)
    z = jax.random.normal(jax.random.key(0), (4, 4, 4, 1)).astype(jnp.bfloat16)
    got = noise_factor(up, 8.0)(z)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, noise_factor(up, 8.0)(z.astype(jnp.float32)))
