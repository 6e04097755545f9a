"""Attention in blocks of keys: the plain one's values and gradients, without its scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.forced_devices import last_line_on
from tpdiff_jax.models.layers import attention_blocks
from tpdiff_jax.models.layers.attention import dot_product_attention
from tpdiff_jax.models.layers.attention_blocks import blockwise_attention
from tpdiff_jax.models.layers.attention_kernels import (
    MIN_TOKENS_CPU,
    attention_over,
    choose_kernel,
)
from tpdiff_jax.models.layers.one_device import OneDevice
from tpdiff_jax.models.layers.text_attention import attention_with_text


def normal(shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def exact(q, k, v, key_mask=None, slope=None):
    """softmax(q k^T / sqrt(e)) v in float64, and the gradients of its product with `slope`."""
    q, k, v, slope = (np.moveaxis(np.float64(x), -2, -3) for x in (q, k, v, slope))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if key_mask is not None:
        scores = np.where(key_mask[:, None, None], scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    d_p = slope @ v.swapaxes(-1, -2)
    d_scores = p * (d_p - (p * d_p).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
    results = p @ v, d_scores @ k, d_scores.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ slope
    return [np.moveaxis(x, -3, -2) for x in results]


def with_gradients(attend, q, k, v, slope):
    out, pull = jax.vjp(attend, q, k, v)
    return [out, *pull(slope.astype(out.dtype))]


def inputs(num_queries, num_keys, lead=(2,), heads=2, dim=8, dtype=jnp.float32, scale=1.0):
    lengths = (num_queries, num_keys, num_keys, num_queries)
    scales = (scale, 1.0, 1.0, 1.0)
    return [
        jnp.asarray(normal((*lead, length, heads, dim), i, factor), dtype)
        for i, (length, factor) in enumerate(zip(lengths, scales, strict=True))
    ]


@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
@pytest.mark.parametrize(
    ("num_queries", "num_keys", "lead"),
    [
        (128, 128, (2,)),  # whole blocks
        (65, 65, (2,)),  # one key more than a block
        (130, 191, (2, 3)),  # several leading axes, lengths that fill no block
        (1, 300, (1,)),  # one query
        (200, 1, (3,)),  # one key
        (70, 67, ()),  # no leading axis
    ],
)
def test_values_and_gradients_are_exact(monkeypatch, num_queries, num_keys, lead, rows_at_once):
    scores_of_a_row = attention_blocks.BLOCK_KEYS * num_queries
    monkeypatch.setattr(attention_blocks, "GROUP_SCORES", rows_at_once * scores_of_a_row)
    q, k, v, slope = inputs(num_queries, num_keys, lead, scale=3.0)
    results = jax.jit(lambda *a: with_gradients(blockwise_attention, *a))(q, k, v, slope)
    for found, expected in zip(results, exact(q, k, v, slope=slope), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


MASKS = {
    "some": np.arange(150) % 3 != np.array([[1], [2]]),
    "first block hidden": np.arange(150) >= np.array([[70], [149]]),
    "last block hidden": np.arange(150) < np.array([[1], [64]]),
    "all seen": np.ones((2, 150), bool),
}


@pytest.mark.parametrize("mask", MASKS)
def test_masked_keys_are_hidden(mask):
    mask = MASKS[mask]
    q, k, v, slope = inputs(90, 150)
    k, v = (jnp.where(mask[..., None, None], x, 1e4) for x in (k, v))  # what is hidden is anything

    def attend(q, k, v):
        return blockwise_attention(q, k, v, jnp.asarray(mask))

    results = with_gradients(attend, q, k, v, slope)
    for found, expected in zip(results, exact(q, k, v, mask, slope), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_scores_far_apart_neither_overflow_nor_vanish():
    """A later block may hold scores hundreds above or below those before it."""
    q, k, v, slope = inputs(20, 200, scale=100.0)
    for keys in (k, k[:, ::-1]):
        results = with_gradients(blockwise_attention, q, keys, v, slope)
        for found, expected in zip(results, exact(q, keys, v, slope=slope), strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-4)


def test_bfloat16_is_as_near_as_plain_attention_is():
    arrays = inputs(130, 300, dtype=jnp.bfloat16)
    expected = exact(*(np.float32(x) for x in arrays[:3]), slope=np.float32(arrays[3]))
    results = with_gradients(blockwise_attention, *arrays)
    plain = with_gradients(dot_product_attention, *arrays)
    for found, other, value in zip(results, plain, expected, strict=True):
        assert found.dtype == jnp.bfloat16
        distance, allowed = (np.linalg.norm(np.float64(x) - value) for x in (found, other))
        assert distance <= 1.5 * allowed and allowed < 0.02 * np.linalg.norm(value)


def test_vmap_over_anything_is_a_leading_axis():
    q, k, v, slope = inputs(70, 130, (3, 2))
    expected = with_gradients(blockwise_attention, q, k, v, slope)
    results = jax.vmap(lambda *a: with_gradients(blockwise_attention, *a))(q, k, v, slope)
    for found, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-6)
    shared = jax.vmap(blockwise_attention, in_axes=(0, None, None))(q, k[0], v[0])
    every = [blockwise_attention(one, k[0], v[0]) for one in q]
    np.testing.assert_allclose(shared, jnp.stack(every), atol=1e-6)


def test_rematerialised_gradients_agree():
    q, k, v, slope = inputs(70, 130)
    expected = with_gradients(blockwise_attention, q, k, v, slope)
    results = with_gradients(jax.checkpoint(blockwise_attention), q, k, v, slope)
    for found, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-6)


def scratch_bytes(attend, num_tokens):
    """Of the compiled gradient."""
    array = jax.ShapeDtypeStruct((1, num_tokens, 2, 16), jnp.float32)
    grad = jax.jit(jax.grad(lambda q, k, v: jnp.sum(attend(q, k, v) ** 2), (0, 1, 2)))
    return grad.lower(array, array, array).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_tokens_not_with_their_square():
    """Four times the tokens take about four times the memory, where scores take sixteen."""
    short, long = (scratch_bytes(blockwise_attention, n) for n in (2048, 8192))
    assert long <= 6 * short
    scores = 2 * 8192**2 * 4
    assert long < scores / 10 and scratch_bytes(dot_product_attention, 8192) > scores


@pytest.mark.parametrize(
    ("choice", "platform", "num_keys", "num_queries", "kernel"),
    [
        ("auto", "cpu", MIN_TOKENS_CPU, None, "blocks"),
        ("auto", "cpu", MIN_TOKENS_CPU - 1, None, "xla"),
        ("auto", "cpu", 4096, MIN_TOKENS_CPU - 1, "xla"),
        ("auto", "cpu", MIN_TOKENS_CPU - 1, 4096, "xla"),
        ("auto", "cpu", 4096, 1024, "blocks"),
        ("xla", "cpu", 4096, 4096, "xla"),
        ("blocks", "cpu", 128, 128, "blocks"),
        ("blocks", "gpu", 4096, 4096, "blocks"),
        ("auto", "gpu", 4096, 4096, "xla"),
        ("auto", "tpu", 4096, 4096, "splash"),
    ],
)
def test_long_sequences_on_a_cpu_take_blocks(choice, platform, num_keys, num_queries, kernel):
    assert choose_kernel(choice, platform, "float32", num_keys, num_queries) == kernel


@pytest.mark.parametrize("axis", ["space", "time", "video"])
def test_attention_along_every_axis_of_a_video_takes_blocks(axis):
    shape = (1, 3, 280, 1, 8)  # [b, f, l, n, e], or [b, l, f, n, e]
    q, k, v = (jnp.asarray(normal(shape, i), jnp.float32) for i in range(3))
    attend = {name: attention_over(axis, name, OneDevice()) for name in ("auto", "xla")}
    loops = str(jax.make_jaxpr(attend["auto"])(q, k, v)).count("scan[")
    assert loops == 1 and "scan[" not in str(jax.make_jaxpr(attend["xla"])(q, k, v))
    np.testing.assert_allclose(attend["auto"](q, k, v), attend["xla"](q, k, v), atol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_text_and_video_in_one_sequence_take_blocks(is_causal):
    text = [jnp.asarray(normal((2, 20, 1, 8), i), jnp.float32) for i in range(3)]
    video = [jnp.asarray(normal((2, 2, 250, 1, 8), 3 + i), jnp.float32) for i in range(3)]
    mask = jnp.asarray(np.arange(20) < np.array([[20], [3]]))
    pairs = list(zip(text, video, strict=True))
    found, expected = (
        attention_with_text(choice, OneDevice(), mask, is_causal)(*pairs)
        for choice in ("blocks", "xla")
    )
    for result, value in zip(found, expected, strict=True):
        np.testing.assert_allclose(result, value, atol=1e-5)


ON_A_MESH = """
import math
import jax, jax.numpy as jnp, numpy as np
from tpdiff_jax.devices.mesh import MeshLayout, MeshSpec, make_mesh
from tpdiff_jax.models.layers.attention_kernels import attention_over
from tpdiff_jax.models.layers.one_device import OneDevice


def with_gradients(choice, layout, arrays, slope):
    attend = attention_over("video", choice, layout)
    out, pull = jax.jit(lambda *a: jax.vjp(attend, *a))(*arrays)
    return [out, *pull(slope)]


rng = np.random.default_rng(0)
*arrays, slope = (jnp.asarray(rng.standard_normal((4, 2, 140, 2, 8)), jnp.float32) for _ in "qkvs")
expected = with_gradients("xla", OneDevice(), arrays, slope)
for sizes in (dict(data=4), dict(data=1, context=4), dict(data=1, fsdp=2, tensor=2)):
    mesh = make_mesh(MeshSpec(**sizes), jax.devices())
    found = with_gradients("blocks", MeshLayout(mesh), arrays, slope)
    for one, several in zip(expected, found, strict=True):
        np.testing.assert_allclose(several, one, atol=1e-5, err_msg=str(sizes))
print("equal")
"""


def test_devices_of_a_mesh_compute_what_one_does():
    assert last_line_on(4, ON_A_MESH) == "equal"
