"""Shared layers against their formulas in numpy, and where each one rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from tpdiff_jax.models.layers.basic import (
    ACTIVATIONS,
    FeedForward,
    FrameGroupNorm,
    RMSNorm,
    layer_norm,
    modulate,
    modulated_norm,
    product,
)
from tpdiff_jax.planning.program_flops import matmul_flops

X = np.random.default_rng(0).standard_normal((2, 3, 5, 16)).astype(np.float32) * 3.0 + 1.0


def test_layer_norm_has_zero_mean_and_unit_variance():
    expected = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer_norm(jnp.asarray(X)), expected, atol=1e-5)


def test_layer_norm_of_a_constant_token_is_zero_not_nan():
    constant = jnp.full((1, 1, 16), 1234.567)
    assert np.abs(layer_norm(constant)).max() < 1e-1
    assert np.isfinite(layer_norm(constant)).all()


@pytest.mark.parametrize("offset", [0.0, 100.0, 3000.0])
@pytest.mark.parametrize(
    ("norm", "num_groups", "axes"), [(layer_norm, 1, (4, 5)), (FrameGroupNorm(64, 8), 8, (2, 3, 5))]
)
def test_norms_keep_their_digits_far_from_zero(norm, num_groups, axes, offset):
    """A variance as E[x^2] - E[x]^2 is off by 1e-3 at 100, and has no digit left at 3,000."""
    clean = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 64))
    x = (clean + offset).astype(np.float32)
    groups = x.astype(np.float64).reshape(*x.shape[:-1], num_groups, -1)
    centred = groups - groups.mean(axes, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-6)
    np.testing.assert_allclose(
        norm(jnp.asarray(x)), expected.reshape(x.shape), rtol=0, atol=1e-6 * (1 + offset)
    )


def test_layer_norm_takes_its_moments_in_float32():
    x = jnp.asarray(X + 50.0, jnp.bfloat16)
    expected = layer_norm(x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(layer_norm(x), expected)


def test_rms_norm_formula():
    norm = RMSNorm(16)
    norm.scale[...] = jnp.arange(16.0)
    expected = X / np.sqrt((X**2).mean(-1, keepdims=True) + 1e-6) * np.arange(16.0)
    np.testing.assert_allclose(norm(jnp.asarray(X)), expected, rtol=1e-5, atol=1e-5)


def test_modulation_is_per_sample_and_the_same_for_every_token():
    shift, scale = np.array([[1.0], [2.0]]), np.array([[0.0], [-1.0]])
    result = modulate(jnp.asarray(X), *(np.repeat(a, 16, axis=1) for a in (shift, scale)))
    np.testing.assert_allclose(result[0], X[0] + 1.0, rtol=1e-6)
    np.testing.assert_allclose(result[1], np.full_like(X[1], 2.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "expected", "tolerance"),
    [
        ("gelu", 0.5 * X * (1.0 + erf(X / np.sqrt(2.0))), 1e-3),
        ("silu", X / (1.0 + np.exp(-X)), 1e-5),
        ("relu_squared", np.where(X > 0.0, X**2, 0.0), 1e-6),
    ],
)
def test_activation_formulas(name, expected, tolerance):
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(X)), expected, atol=tolerance)


def test_feed_forward_is_two_linear_layers_around_the_activation():
    layer = FeedForward(16, 24, "relu_squared", jnp.dtype("float32"), nnx.Rngs(0))
    hidden = np.maximum(X @ np.asarray(layer.inner.kernel[...]), 0.0) ** 2
    expected = hidden @ np.asarray(layer.outer.kernel[...])
    np.testing.assert_allclose(layer(jnp.asarray(X)), expected, rtol=1e-4, atol=1e-4)


def test_feed_forward_can_end_in_another_width():
    layer = FeedForward(16, 24, "silu", jnp.dtype("float32"), nnx.Rngs(0), out_dim=6)
    assert layer(jnp.asarray(X)).shape == (*X.shape[:-1], 6)


def test_modulated_norm_is_both_and_keeps_its_input_alone():
    """Of the backward pass: nothing as wide as the tokens is kept beside them."""
    shift, scale = jnp.full((2, 16), 0.5), jnp.full((2, 16), -0.25)
    x = jnp.asarray(X)
    np.testing.assert_array_equal(
        modulated_norm(x, shift, scale), modulate(layer_norm(x), shift, scale)
    )
    for function in (lambda x: modulated_norm(x, shift, scale), ACTIVATIONS["gelu"]):
        _, backward = jax.vjp(function, x)
        wide = [leaf for leaf in jax.tree.leaves(backward) if leaf.shape == x.shape]
        assert len(wide) == 1
        np.testing.assert_array_equal(wide[0], x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("d_in", "d_out"), [(16, 48), (48, 16), (16, 16), (5, 1)])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3, 5)])
def test_the_products_gradients_are_those_of_a_matrix_product(leading, d_in, d_out, dtype):
    """In float64 numpy: dx = dy W^T, dW = x^T dy over all tokens; rounded once to the type."""
    rng = np.random.default_rng(2)
    x, kernel, dy = (
        jnp.asarray(rng.standard_normal(shape), dtype)
        for shape in ((*leading, d_in), (d_in, d_out), (*leading, d_out))
    )
    y, backward = jax.vjp(product, x, kernel)
    dx, dkernel = jax.jit(backward)(dy)
    wide = [np.asarray(a, np.float64) for a in (x, kernel, dy)]
    rows = [a.reshape(-1, a.shape[-1]) for a in (wide[0], wide[2])]
    expected = (wide[0] @ wide[1], wide[2] @ wide[1].T, rows[0].T @ rows[1])
    for found, wanted in zip((y, dx, dkernel), expected, strict=True):
        assert found.dtype == dtype and found.shape == wanted.shape
        tolerance = 1e-5 if dtype == "float32" else 0.02
        np.testing.assert_allclose(np.float64(found), wanted, rtol=tolerance, atol=10 * tolerance)


def test_a_frozen_kernel_costs_no_gradient_and_keeps_no_input():
    """And so does an input that nothing is to be learned of: the first layer's."""
    x, kernel = jnp.ones((2, 7, 16)), jnp.ones((16, 8))
    forward = 2.0 * 14 * 16 * 8

    def flops(function, argument):
        return matmul_flops(jax.make_jaxpr(jax.grad(lambda a: function(a).sum()))(argument).jaxpr)

    assert flops(lambda x: product(x, kernel), x) == 2 * forward
    assert flops(lambda w: product(x, w), kernel) == 2 * forward
    both = jax.make_jaxpr(jax.grad(lambda a: product(*a).sum()))((x, kernel))
    assert matmul_flops(both.jaxpr) == 3 * forward
    _, backward = jax.vjp(lambda x: product(x, kernel), x)
    assert x.shape not in [leaf.shape for leaf in jax.tree.leaves(backward)]


def test_the_product_batches_and_is_the_same_under_recomputation_and_scan():
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.standard_normal((4, 6, 8)), jnp.float32)
    kernels = jnp.asarray(rng.standard_normal((3, 8, 8)), jnp.float32)

    def loss(multiply, kernels):
        def body(y, kernel):
            return jnp.tanh(multiply(y, kernel)), None

        return jax.lax.scan(body, x, kernels)[0].sum()

    plain = jax.grad(lambda w: loss(jnp.matmul, w))(kernels)
    recomputed = jax.checkpoint(product)
    batched = jax.vmap(product, (0, None))
    for multiply in (product, recomputed, batched):
        found = jax.jit(jax.grad(lambda w, m=multiply: loss(m, w)))(kernels)
        np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5)
