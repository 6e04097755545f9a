"""Embeddings of time, strides and labels."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tpdiff_jax.models.layers.embeddings import (
    LabelEmbedding,
    ScalarEmbedding,
    StrideEmbedding,
    sine_first,
    sinusoid_features,
)


def test_sinusoids_are_cosines_first_with_geometric_frequencies():
    t = np.array([0.0, 1.0, 999.5])
    frequencies = 10_000.0 ** (-np.arange(4) / 4)
    expected = np.concatenate(
        [np.cos(t[:, None] * frequencies), np.sin(t[:, None] * frequencies)], 1
    )
    np.testing.assert_allclose(sinusoid_features(jnp.asarray(t), 8), expected, atol=1e-4)


def test_scalar_embedding_tells_times_apart():
    embedding = ScalarEmbedding(32, nnx.Rngs(0))
    near = embedding(jnp.array([0.0, 10.0, 500.0, 1000.0]))
    gaps = np.linalg.norm(np.diff(near, axis=0), axis=-1)
    assert near.shape == (4, 32)
    assert gaps.min() > 0.1


def test_stride_embedding_is_of_the_octaves_of_every_axis():
    embedding = StrideEmbedding(32, nnx.Rngs(0))
    time = embedding.time(jnp.array([100.0 * np.log2(3.0)]))
    np.testing.assert_array_equal(embedding((3, 1, 1)), time)  # nothing of space in it
    features = [
        f(octave * 10_000.0 ** (-np.arange(64) / 64))
        for octave in 100.0 * np.log2([8.0, 2.0])
        for f in (np.cos, np.sin)
    ]
    space = embedding.space.of_features(jnp.asarray(np.concatenate(features))[None])
    np.testing.assert_allclose(embedding((3, 8, 2)), time + space, atol=1e-4)


def test_stride_embedding_tells_every_stage_apart():
    embedding = StrideEmbedding(32, nnx.Rngs(0))
    strides = list(itertools.product((1, 2, 3, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)))
    vectors = np.concatenate([np.asarray(embedding(stride)) for stride in strides])
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    assert (distances + np.eye(len(strides))).min() > 0.1


def test_labels_are_summed_whatever_their_order():
    embedding = LabelEmbedding(10, 16, nnx.Rngs(0))
    table = np.asarray(embedding.table[...])
    result = embedding(jnp.array([[3, 7], [7, 3], [10, 10]]))
    np.testing.assert_allclose(result[0], table[3] + table[7], rtol=1e-6)
    np.testing.assert_array_equal(result[0], result[1])
    np.testing.assert_allclose(result[2], 2.0 * table[10], rtol=1e-6)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_sines_come_first_and_rates_fall_from_one(as_array):
    """By numpy, at whole places and between them."""
    places = np.array([0.0, 0.5, 3.0, 40.0])
    table = np.asarray(sine_first(as_array(places), 6))
    angles = places[:, None] * 10_000.0 ** (-np.arange(3) / 3)
    np.testing.assert_allclose(table, np.hstack([np.sin(angles), np.cos(angles)]), atol=1e-5)
    assert table.dtype == np.float32
