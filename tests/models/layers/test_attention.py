"""Attention against JAX's own, over any leading axes; queries and keys of unit scale."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tpdiff_jax.models.layers.attention import SelfAttention, dot_product_attention, joint_attention
from tpdiff_jax.models.layers.rope import axis_angles, rope_table

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


def test_scores_of_bfloat16_are_not_rounded_before_the_softmax():
    q, k = (5.0 * normal((1, 64, 2, 64), seed) for seed in (0, 1))  # scores far above 1
    q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, normal((1, 64, 2, 64), 2)))
    expected = dot_product_attention(*(x.astype(jnp.float32) for x in (q, k, v)))
    result = dot_product_attention(q, k, v)
    assert result.dtype == jnp.bfloat16
    # Weights and values round to 2^-9 each; scores near 64 would err by 1/8 and weights by 12 %.
    np.testing.assert_allclose(result.astype(jnp.float32), expected, atol=0.03)


def test_gradients_of_bfloat16_have_its_type():
    q, k, v = (normal((1, 8, 2, 16), seed).astype(jnp.bfloat16) for seed in range(3))
    slopes = jax.grad(lambda *x: dot_product_attention(*x).sum(), argnums=(0, 1, 2))(q, k, v)
    assert {slope.dtype.name for slope in slopes} == {"bfloat16"}


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


def test_hidden_keys_are_as_if_they_were_not_there():
    q, k, v = normal((3, 2, 6, 4, 8))
    mask = jnp.array([[1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 1, 1]], bool)
    result = dot_product_attention(q, k, v, mask)
    for b in range(2):
        kept = np.flatnonzero(mask[b])
        expected = dot_product_attention(q[b], k[b, kept], v[b, kept])
        np.testing.assert_allclose(result[b], expected, atol=1e-6)


def as_one_sequence(q, k, v):
    """Joint attention by the plain one: streams side by side, and apart again."""
    ends = np.cumsum([part.shape[1] for part in q])[:-1]
    joined = dot_product_attention(*(jnp.concatenate(part, axis=1) for part in (q, k, v)))
    return tuple(jnp.split(joined, ends, axis=1))


def test_streams_with_the_same_weights_attend_as_one_sequence():
    attention, x = SelfAttention(16, 2, True, FLOAT32, nnx.Rngs(0)), normal((2, 5, 16))
    table = frame_table(np.arange(5.0))
    tables = [tuple(part[:2] for part in table), tuple(part[2:] for part in table)]
    parts = joint_attention([attention] * 2, [x[:, :2], x[:, 2:]], tables, as_one_sequence)
    assert [part.shape[1] for part in parts] == [2, 3]
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), attention(x, table), atol=1e-6)


def test_each_stream_goes_through_its_own_weights():
    one, other = (SelfAttention(16, 2, True, FLOAT32, nnx.Rngs(seed)) for seed in (0, 1))
    x = normal((2, 5, 16))
    streams, tables = [x[:, :2], x[:, 2:]], [None, None]
    first, second = joint_attention([one, other], streams, tables, as_one_sequence)
    same_first, same_second = joint_attention([one, one], streams, tables, as_one_sequence)
    assert np.abs(first - same_first).max() > 1e-2  # it sees the other stream's keys and values
    assert np.abs(second - same_second).max() > 1e-2


def test_without_an_output_layer_heads_come_back_side_by_side():
    attention = SelfAttention(16, 2, False, FLOAT32, nnx.Rngs(0), has_output=False)
    q, k, v = (normal((2, 5, 2, 8), seed) for seed in range(3))
    assert attention.out is None
    heads = dot_product_attention(q, k, v)
    joined = attention.merge(heads)
    np.testing.assert_array_equal(joined[..., :8], heads[..., 0, :])
    np.testing.assert_array_equal(joined[..., 8:], heads[..., 1, :])
