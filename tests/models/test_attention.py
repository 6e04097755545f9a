"""Attention against JAX's own, over any leading axes; queries and keys of unit scale."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tpdiff_jax.models.attention import SelfAttention, dot_product_attention
from tpdiff_jax.models.rope import axis_angles, rope_table

FLOAT32 = jnp.dtype("float32")


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def frame_table(positions, dim=8):
    return rope_table([axis_angles(positions, dim, 10_000.0)])


def test_equals_jax_dot_product_attention():
    q, k, v = normal((3, 2, 7, 4, 8))
    expected = jax.nn.dot_product_attention(q, k, v)
    np.testing.assert_allclose(dot_product_attention(q, k, v), expected, atol=2e-6)


def test_leading_axes_are_batch():
    q, k, v = normal((3, 2, 5, 7, 4, 8))
    result = dot_product_attention(q, k, v)
    for i in range(5):
        expected = dot_product_attention(q[:, i], k[:, i], v[:, i])
        np.testing.assert_allclose(result[:, i], expected, atol=1e-6)


def test_softmax_of_bfloat16_scores_runs_in_float32():
    q, k = jnp.full((1, 300, 1, 2), 0.0, jnp.bfloat16), jnp.full((1, 300, 1, 2), 0.0, jnp.bfloat16)
    v = jnp.ones((1, 300, 1, 2), jnp.bfloat16)
    result = dot_product_attention(q, k, v)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(result.astype(jnp.float32), 1.0, atol=5e-3)


def test_permuting_tokens_with_their_positions_permutes_the_output():
    attention = SelfAttention(16, 2, True, FLOAT32, nnx.Rngs(0))
    x, positions, order = normal((2, 5, 16)), np.arange(5.0) * 4, np.array([3, 0, 4, 1, 2])
    expected = attention(x, frame_table(positions))[:, order]
    result = attention(x[:, order], frame_table(positions[order]))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_normalised_queries_and_keys_make_scores_free_of_their_weights_scale():
    attention = SelfAttention(16, 2, True, FLOAT32, nnx.Rngs(0))
    x, table = normal((2, 5, 16)), frame_table(np.arange(5.0))
    expected = attention(x, table)
    kernel = attention.qkv.kernel[...]
    attention.qkv.kernel[...] = kernel.at[:, :32].multiply(100.0)
    np.testing.assert_allclose(attention(x, table), expected, atol=1e-4)


def test_without_qk_norm_there_is_nothing_to_learn_but_the_projections():
    attention = SelfAttention(16, 2, False, FLOAT32, nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(attention, nnx.Param))
    assert set(params) == {"qkv", "out"}
