"""The loss: a mean per sample, in float32, of equal shapes only."""

import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.method.losses import mean_squared_error


def test_is_the_mean_over_all_axes_but_the_first():
    rng = np.random.default_rng(0)
    prediction, target = rng.standard_normal((2, 3, 4, 2, 2, 1)).astype(np.float32)
    expected = ((prediction - target) ** 2).reshape(3, -1).mean(1)
    np.testing.assert_allclose(mean_squared_error(prediction, target), expected, rtol=1e-6)


def test_is_computed_in_float32_whatever_the_network_returns():
    target = jnp.full((2, 4), 1.0)
    loss = mean_squared_error(jnp.full((2, 4), 1.0078125, jnp.bfloat16), target)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 0.0078125**2, rtol=1e-6)


def test_refuses_shapes_that_would_broadcast():
    with pytest.raises(AssertionError):
        mean_squared_error(jnp.zeros((2, 4, 1)), jnp.zeros((2, 4, 3)))
