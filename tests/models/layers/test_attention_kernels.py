"""Kernels agree with plain attention, forward and backward, and run only where they can."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.models.layers.attention import dot_product_attention
from tpdiff_jax.models.layers.attention_kernels import (
    MIN_TOKENS,
    attention_over,
    block_size,
    check_kernel,
    choose_kernel,
    cudnn_attention,
    splash_attention,
)
from tpdiff_jax.models.layers.one_device import OneDevice
from tpdiff_jax.models.layers.text_attention import attention_to_text, attention_with_text


def heads(num_tokens, num_heads=1, dim=8, seed=0, dtype=jnp.float32):
    shape = (1, num_tokens, num_heads, dim)
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def outputs_and_gradients(attend, q, k, v):
    weights = jnp.cos(jnp.arange(q.size, dtype=jnp.float32)).reshape(q.shape)

    def loss(*inputs):
        out = attend(*inputs)
        return jnp.sum(out.astype(jnp.float32) * weights), out

    gradients, out = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return [out, *gradients]


@pytest.mark.parametrize(("num_queries", "num_keys"), [(130, 130), (20, 200)])
def test_splash_equals_xla_where_lengths_are_no_multiple_of_the_block(num_queries, num_keys):
    q, k, v = heads(num_queries, 2), heads(num_keys, 2, seed=1), heads(num_keys, 2, seed=2)

    def splash(q, k, v):
        return splash_attention(q, k, v, is_interpreted=True)

    expected = outputs_and_gradients(dot_product_attention, q, k, v)
    for result, value in zip(outputs_and_gradients(splash, q, k, v), expected, strict=True):
        np.testing.assert_allclose(result, value, atol=2e-5)


MASK = np.arange(200)[None] % 3 != np.array([[1], [2]])


def with_mask(kernel):
    return lambda q, k, v: kernel(q, k, v, jnp.asarray(MASK))


def test_splash_hides_masked_keys():
    def splash(q, k, v, mask):
        return splash_attention(q, k, v, mask, is_interpreted=True)

    q, k, v = (jnp.tile(heads(n, 2, seed=i), (2, 1, 1, 1)) for i, n in enumerate((20, 200, 200)))
    expected = outputs_and_gradients(with_mask(dot_product_attention), q, k, v)
    results = outputs_and_gradients(with_mask(splash), q, k, v)
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, atol=2e-5)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
def test_cudnn_hides_masked_keys():
    q, k, v = (
        jnp.tile(heads(n, 2, 64, seed=i, dtype=jnp.bfloat16), (2, 1, 1, 1))
        for i, n in enumerate((20, 200, 200))
    )
    expected = outputs_and_gradients(with_mask(dot_product_attention), q, k, v)
    results = outputs_and_gradients(with_mask(cudnn_attention), q, k, v)
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.astype(jnp.float32), value.astype(jnp.float32), atol=3e-2)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
def test_cudnn_equals_xla_to_the_rounding_of_bfloat16():
    q, k, v = (heads(200, 2, 64, seed=i, dtype=jnp.bfloat16) for i in range(3))
    expected = outputs_and_gradients(dot_product_attention, q, k, v)
    for result, value in zip(
        outputs_and_gradients(cudnn_attention, q, k, v), expected, strict=True
    ):
        np.testing.assert_allclose(result.astype(jnp.float32), value.astype(jnp.float32), atol=3e-2)


@pytest.mark.parametrize(
    ("num_tokens", "block"), [(1, 128), (130, 256), (300, 128), (960, 512), (15360, 512)]
)
def test_blocks_are_as_large_as_padding_allows(num_tokens, block):
    assert block_size(num_tokens) == block


@pytest.mark.parametrize(
    ("choice", "platform", "dtype", "kernel"),
    [
        ("auto", "cpu", "bfloat16", "xla"),
        ("auto", "tpu", "float32", "splash"),
        ("auto", "gpu", "bfloat16", "cudnn"),
        ("auto", "gpu", "float32", "xla"),
        ("xla", "tpu", "bfloat16", "xla"),
    ],
)
def test_each_platform_gets_its_kernel_and_short_sequences_get_xla(choice, platform, dtype, kernel):
    assert choose_kernel(choice, platform, dtype, MIN_TOKENS) == kernel
    assert choose_kernel(choice, platform, dtype, MIN_TOKENS - 1) == "xla"


@pytest.mark.parametrize(
    ("head_dim", "kernel"), [(40, "cudnn"), (128, "cudnn"), (20, "xla"), (160, "xla"), (256, "xla")]
)
def test_heads_that_cudnn_does_not_take_get_xla(head_dim, kernel):
    """Of 160 channels are those of Stable Diffusion's third level, which an A100 refuses."""
    for choice in ("auto", "cudnn"):
        found = choose_kernel(choice, "gpu", "bfloat16", MIN_TOKENS, head_dim=head_dim)
        assert found == kernel


@pytest.mark.parametrize("dim", [20, 160])
@pytest.mark.parametrize("choice", ["auto", "cudnn"])
def test_networks_ask_with_the_width_of_their_heads(choice, dim, monkeypatch):
    monkeypatch.setattr(OneDevice, "platform", "gpu")
    q, k, v = (heads(MIN_TOKENS, dim=dim, seed=i, dtype=jnp.bfloat16) for i in range(3))
    video = [part[:, None] for part in (q, k, v)]  # [b, f, l, n, e], of one frame
    is_text = jnp.ones((1, MIN_TOKENS), bool)
    expected = dot_product_attention(q, k, v)
    over_places = attention_over("space", choice, OneDevice())(*video)
    to_text = attention_to_text(choice, OneDevice(), is_text)(video[0], k, v)
    for found in (over_places, to_text):
        np.testing.assert_array_equal(found[:, 0], expected)
    pairs = [(part, frames) for part, frames in zip((q, k, v), video, strict=True)]
    text, frames = attention_with_text(choice, OneDevice(), is_text, False)(*pairs)
    assert text.shape == q.shape and frames.shape == video[0].shape


@pytest.mark.parametrize(
    ("choice", "platform", "dtype", "message"),
    [
        ("splash", "cpu", "float32", r"model\.attention_kernel='splash' needs a tpu"),
        ("cudnn", "tpu", "bfloat16", r"model\.attention_kernel='cudnn' needs a gpu"),
        ("cudnn", "gpu", "float32", r"needs model\.dtype='bfloat16', got 'float32'"),
    ],
)
def test_a_kernel_that_cannot_run_is_refused(choice, platform, dtype, message):
    with pytest.raises(ValueError, match=message):
        check_kernel(choice, platform, dtype)


def test_attention_over_a_video_mixes_frames_and_places():
    shape = (2, 3, 4, 1, 8)  # [b, f, l, n, e]
    q, k, v = (
        jnp.asarray(np.random.default_rng(i).standard_normal(shape), jnp.float32) for i in range(3)
    )
    result = attention_over("video", "xla", OneDevice())(q, k, v)
    flat = (part.reshape(2, 12, 1, 8) for part in (q, k, v))
    np.testing.assert_allclose(result.reshape(2, 12, 1, 8), dot_product_attention(*flat), atol=1e-6)
