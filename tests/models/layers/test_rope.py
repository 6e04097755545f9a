"""Rotary positions: rotations of interleaved pairs whose products see only differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.models.layers.rope import (
    axis_angles,
    rope_table,
    rotate_pairs,
    split_head,
    video_table,
)
from tpdiff_jax.types import Positions

THETA = 10_000.0


def random_heads(num_tokens, num_heads=2, head_dim=8, seed=0):
    shape = (num_tokens, num_heads, head_dim)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rotated(x, positions):
    return rotate_pairs(x, rope_table([axis_angles(positions, x.shape[-1], THETA)]))


def test_rotation_is_complex_multiplication_of_interleaved_pairs():
    x, positions = random_heads(5), np.array([0.0, 1.0, 2.5, 4.0, 15.0])
    frequencies = 10_000.0 ** (-np.array([0, 2, 4, 6]) / 8)
    turn = np.exp(1j * positions[:, None] * frequencies)[:, None, :]
    expected = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
    result = np.asarray(rotated(x, positions))
    np.testing.assert_allclose(result[..., 0::2], expected.real, atol=1e-6)
    np.testing.assert_allclose(result[..., 1::2], expected.imag, atol=1e-6)


def test_products_depend_on_position_differences_only():
    q, k = random_heads(6, seed=1), random_heads(6, seed=2)
    positions = np.array([0.0, 4.0, 8.0, 12.0, 13.0, 15.0])

    def scores(shift):
        return jnp.einsum("qne,kne->nqk", rotated(q, positions + shift), rotated(k, positions))

    def both_shifted(shift):
        moved = positions + shift
        return jnp.einsum("qne,kne->nqk", rotated(q, moved), rotated(k, moved))

    np.testing.assert_allclose(both_shifted(7.0), both_shifted(0.0), atol=2e-5)
    assert np.abs(scores(7.0) - scores(0.0)).max() > 0.1


def test_rotation_keeps_lengths():
    x = random_heads(4)
    result = rotated(x, np.array([0.0, 3.0, 6.0, 100.0]))
    np.testing.assert_allclose(
        np.linalg.norm(result, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6
    )


def test_a_kept_frame_turns_alike_in_every_stage():
    full = rope_table([axis_angles(np.arange(16.0), 8, THETA)])
    coarse = rope_table([axis_angles(np.arange(0.0, 16.0, 4.0), 8, THETA)])
    for part_full, part_coarse in zip(full, coarse, strict=True):
        np.testing.assert_array_equal(part_full[::4], part_coarse)


def test_static_tables_are_float64_rounded_once_and_traced_ones_are_close():
    positions = np.arange(200.0)
    angles = axis_angles(positions, 16, THETA)
    assert angles.dtype == np.float64
    cos, sin = rope_table([angles])
    assert cos.dtype == sin.dtype == jnp.float32
    np.testing.assert_array_equal(cos, np.cos(angles).astype(np.float32))
    traced_cos, traced_sin = jax.jit(lambda p: rope_table([axis_angles(p, 16, THETA)]))(
        jnp.asarray(positions)
    )
    np.testing.assert_allclose(traced_cos, cos, atol=2e-5)
    np.testing.assert_allclose(traced_sin, sin, atol=2e-5)


def test_axes_own_runs_of_channels_in_order():
    angles = [np.full((1, 2), 1.0), np.full((1, 1), 2.0)]
    cos, _ = rope_table(angles)
    np.testing.assert_allclose(cos[0], np.cos([1.0, 1.0, 2.0]), rtol=1e-6)


def test_video_tokens_turn_by_their_own_frame_row_and_column():
    rows, columns = np.array([0, 0, 2, 2]), np.array([0, 1, 0, 1])
    patches = Positions(np.array([0.0, 4.0]), rows, columns)
    frame = [[0, 0, 0, 0], [4, 4, 4, 4]]
    expected = np.stack(np.broadcast_arrays(frame, rows, columns), axis=-1)  # [f, l, 3]
    cos, sin = video_table(patches, (2, 2, 2), THETA)
    np.testing.assert_array_equal(cos, np.cos(expected).astype(np.float32))
    np.testing.assert_array_equal(sin, np.sin(expected).astype(np.float32))
    traced = jax.jit(lambda p: video_table(p, (2, 2, 2), THETA))(patches)
    np.testing.assert_allclose(traced, (cos, sin), atol=1e-6)


def test_rotation_of_bfloat16_is_done_in_float32():
    x = jnp.asarray(random_heads(3), jnp.bfloat16)
    result = rotated(x, np.array([0.0, 1.0, 2.0]))
    expected = rotated(x.astype(jnp.float32), np.array([0.0, 1.0, 2.0])).astype(jnp.bfloat16)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("head_dim", "num_axes", "expected"),
    [(128, 3, (44, 42, 42)), (64, 2, (32, 32)), (32, 1, (32,)), (64, 3, (24, 20, 20))],
)
def test_head_is_shared_as_wan_shares_it(head_dim, num_axes, expected):
    assert split_head(head_dim, num_axes) == expected
    assert sum(split_head(head_dim, num_axes)) == head_dim


@pytest.mark.parametrize(("head_dim", "num_axes"), [(7, 1), (4, 3)])
def test_a_head_without_a_pair_for_every_axis_is_refused(head_dim, num_axes):
    with pytest.raises(ValueError, match="head_dim must be even"):
        split_head(head_dim, num_axes)
