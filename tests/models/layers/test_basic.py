"""Shared layers against their formulas in numpy, and where each one rounds."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from tpdiff_jax.models.layers.basic import ACTIVATIONS, FeedForward, RMSNorm, layer_norm, modulate

X = np.random.default_rng(0).standard_normal((2, 3, 5, 16)).astype(np.float32) * 3.0 + 1.0


def test_layer_norm_has_zero_mean_and_unit_variance():
    expected = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer_norm(jnp.asarray(X)), expected, atol=1e-5)


def test_layer_norm_of_a_constant_token_is_zero_not_nan():
    constant = jnp.full((1, 1, 16), 1234.567)
    assert np.abs(layer_norm(constant)).max() < 1e-1
    assert np.isfinite(layer_norm(constant)).all()


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
