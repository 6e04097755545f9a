"""Guidance is one formula, one network call, and nothing at scale 1."""

import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.method.guidance import guided
from tpdiff_jax.types import Positions


def positions(num_frames):
    return Positions(jnp.arange(1.0 * num_frames), jnp.zeros(1), jnp.zeros(1))


def labelled(x_t, t, positions, strides, cond):
    """A network whose answer tells everything it was given."""
    return x_t * cond["label"][:, None, None, None, None] + t[:, None, None, None, None]


def test_scale_one_is_the_network_itself():
    assert guided(labelled, 1.0, {"label": jnp.zeros(2)}) is labelled


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_guidance_extrapolates_from_the_unconditional_answer(scale):
    x_t, t = jnp.arange(2.0 * 3).reshape(2, 3, 1, 1, 1), jnp.asarray([10.0, 20.0])
    cond, null = {"label": jnp.asarray([2.0, 5.0])}, {"label": jnp.asarray([-1.0, -1.0])}
    out = guided(labelled, scale, null)(x_t, t, positions(3), (1, 1, 1), cond)
    x, time = np.arange(6.0).reshape(2, 3), np.asarray([[10.0], [20.0]])
    with_label, without = x * np.asarray([[2.0], [5.0]]) + time, -x + time
    expected = without + scale * (with_label - without)
    np.testing.assert_allclose(out[..., 0, 0, 0], expected, rtol=1e-6)


def test_guidance_calls_the_network_once_with_both_conditions():
    calls = []

    def network(x_t, t, positions, strides, cond):
        calls.append((x_t.shape, t.shape, strides, np.asarray(cond["label"]).tolist()))
        return x_t

    x_t = jnp.ones((2, 3, 1, 1, 1))
    null = {"label": jnp.asarray([9, 9])}
    guided(network, 2.0, null)(
        x_t, jnp.zeros(2), positions(3), (4, 1, 1), {"label": jnp.asarray([1, 2])}
    )
    assert calls == [((4, 3, 1, 1, 1), (4,), (4, 1, 1), [1, 2, 9, 9])]


def test_guidance_without_a_null_condition_is_refused():
    with pytest.raises(ValueError, match=r"sample\.guidance_scale is 2\.0"):
        guided(labelled, 2.0, None)
