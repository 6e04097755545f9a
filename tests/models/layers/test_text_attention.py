"""Video and text attend to each other by the rules in words, whatever the kernel's grouping."""

import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.models.layers.attention import dot_product_attention
from tpdiff_jax.models.layers.one_device import OneDevice
from tpdiff_jax.models.layers.text_attention import (
    attention_to_text,
    attention_with_text,
    num_seen_keys,
)

NUM_TEXT, NUM_FRAMES, NUM_PATCHES = 3, 4, 2
TEXT_MASK = np.array([[1, 1, 1], [1, 0, 0]])
FRAME_OF = [0] * NUM_TEXT + [i for i in range(NUM_FRAMES) for _ in range(NUM_PATCHES)]


def streams(seed):
    rng = np.random.default_rng(seed)
    text = rng.standard_normal((2, NUM_TEXT, 2, 8))
    video = rng.standard_normal((2, NUM_FRAMES, NUM_PATCHES, 2, 8))
    return jnp.asarray(text, jnp.float32), jnp.asarray(video, jnp.float32)


def joined(stream):
    text, video = stream
    return np.concatenate([text, np.reshape(video, (2, -1, 2, 8))], axis=1)


def seen_by(query, b, is_causal):
    """The rules in words: no padding, and where it is causal no frame after the query's own."""
    return [
        key
        for key, frame in enumerate(FRAME_OF)
        if (key >= NUM_TEXT or TEXT_MASK[b, key]) and not (is_causal and frame > FRAME_OF[query])
    ]


@pytest.mark.parametrize("is_causal", [False, True])
def test_every_token_sees_what_the_rules_say(is_causal):
    q, k, v = (streams(seed) for seed in range(3))
    attend = attention_with_text("xla", OneDevice(), jnp.asarray(TEXT_MASK), is_causal)
    result = joined(attend(q, k, v))
    q, k, v = (joined(part) for part in (q, k, v))
    for b in range(2):
        for query in range(len(FRAME_OF)):
            keys = seen_by(query, b, is_causal)
            expected = dot_product_attention(q[b, [query]], k[b, keys], v[b, keys])[0]
            np.testing.assert_allclose(result[b, query], expected, atol=1e-6)


@pytest.mark.parametrize("mask", [None, TEXT_MASK, TEXT_MASK > 0, [[0, 1, 0], [0, 0, 0]]])
def test_a_video_sees_the_visible_text_and_of_padding_alone_all(mask):
    (_, q), (k, _), (v, _) = (streams(seed) for seed in range(3))
    given = None if mask is None else jnp.asarray(mask)
    result = attention_to_text("xla", OneDevice(), given)(q, k, v)
    for b in range(2):
        keys = [0, 1, 2] if mask is None else list(np.flatnonzero(mask[b])) or [0, 1, 2]
        for frame in range(NUM_FRAMES):
            keys_of = k[b, jnp.array(keys)], v[b, jnp.array(keys)]
            expected = dot_product_attention(q[b, frame], *keys_of)
            np.testing.assert_allclose(result[b, frame], expected, atol=1e-6)


def test_the_number_of_seen_keys_is_counted_by_hand():
    assert num_seen_keys(NUM_TEXT, NUM_FRAMES, NUM_PATCHES, False) == 3 + 4 * 2
    total = 3 * 5 + 2 * (5 + 7 + 9 + 11)  # three of text and two of frame 0 see 3 + 2, and so on
    assert num_seen_keys(NUM_TEXT, NUM_FRAMES, NUM_PATCHES, True) == total / 11
