"""Rotary position embedding: rotate interleaved pairs of a head by position times frequency.

Channels (0, 1), (2, 3), ... of a head are points of a plane; pair j of an axis with e channels
turns by the angle

    angle_j = position * theta^(-2 j / e),   j = 0 .. e/2 - 1

so that the product of a query at p and a key at q depends on p - q only. Several axes (frame, row,
column) share one head: each owns a run of its channels. Interleaved pairs are what Flux, MiniFlux
and Wan use (the halves layout of GPT-NeoX is a permutation of the channels).

Source: Su et al., RoFormer, arXiv 2104.09864, Eq. 15.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from tpdiff_jax.types import Array, ArrayLike, Positions


def split_head(head_dim: int, num_axes: int) -> tuple[int, ...]:
    """Share the channels of a head among axes, each share even, the first taking the rest.

    With three axes this is Wan's split: 128 -> 44, 42, 42.

    Args:
        head_dim: channels of a head, even.
        num_axes: number of axes.

    Returns:
        Channels of each axis; they sum to `head_dim`.

    Raises:
        ValueError: if `head_dim` is odd or too small to give every axis a pair.
    """
    if head_dim % 2 or head_dim < 2 * num_axes:
        raise ValueError(
            f"head_dim must be even and at least {2 * num_axes} for {num_axes} rotary axes, "
            f"got {head_dim}"
        )
    share = 2 * (head_dim // (2 * num_axes))
    return (head_dim - share * (num_axes - 1),) + (share,) * (num_axes - 1)


def rope_frequencies(dim: int, theta: float) -> np.ndarray:
    """Angle of each pair at position 1, theta^(-2 j / dim): float64, [dim / 2]."""
    return theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)


def axis_angles(positions: ArrayLike, dim: int, theta: float) -> Array | np.ndarray:
    """Angles of one axis.

    Args:
        positions: positions along the axis, [l]. A numpy array is static: its angles are computed
            in float64 and rounded once; a traced array is computed in float32.
        dim: channels of the axis, even.
        theta: base of the frequencies.

    Returns:
        Angles, [l, dim / 2].

    Source: arXiv 2104.09864, Eq. 15.
    """
    frequencies = rope_frequencies(dim, theta)
    if isinstance(positions, np.ndarray):
        return positions.astype(np.float64)[:, None] * frequencies
    return jnp.asarray(positions, jnp.float32)[:, None] * frequencies.astype(np.float32)


def rope_table(angles: Sequence[Array | np.ndarray]) -> tuple[Array, Array]:
    """Cosine and sine tables of one head from the angles of its axes.

    Args:
        angles: per axis [..., dim / 2], in the order of the head's channels.

    Returns:
        cos, sin: float32, [..., head_dim / 2]; from float64 where every angle is static.
    """
    if all(isinstance(a, np.ndarray) for a in angles):
        table = np.concatenate([np.asarray(a) for a in angles], axis=-1)
        return jnp.asarray(np.cos(table), jnp.float32), jnp.asarray(np.sin(table), jnp.float32)
    traced = jnp.concatenate([jnp.asarray(a, jnp.float32) for a in angles], axis=-1)
    return jnp.cos(traced), jnp.sin(traced)


def video_table(patches: Positions, dims: Sequence[int], theta: float) -> tuple[Array, Array]:
    """Cosine and sine tables of all tokens of a video.

    Args:
        patches: positions of frames [f], and of every patch of a frame its row and its column [l];
            numpy where static.
        dims: channels of a head for frame, row and column.
        theta: base of the frequencies.

    Returns:
        cos, sin: float32, [f, l, head_dim / 2].
    """
    num_frames, num_patches = np.shape(patches.frames)[0], np.shape(patches.rows)[0]
    frame_of, patch_of = np.divmod(np.arange(num_frames * num_patches), num_patches)
    angles = [axis_angles(p, dim, theta) for p, dim in zip(patches, dims, strict=True)]
    of_tokens = (frame_of, patch_of, patch_of)
    table = rope_table([a[i] for a, i in zip(angles, of_tokens, strict=True)])
    cos, sin = (part.reshape(num_frames, num_patches, -1) for part in table)
    return cos, sin


def rotate_pairs(x: Array, table: tuple[Array, Array]) -> Array:
    """Rotate every interleaved pair of each head by its token's angle.

    (x_0, x_1) -> (x_0 cos - x_1 sin, x_1 cos + x_0 sin)

    Args:
        x: queries or keys, [..., l, n, e].
        table: cos and sin, [..., l, e / 2]: the last axes of tokens.

    Returns:
        The rotated array, same shape and dtype; the rotation itself is done in float32.

    Source: arXiv 2104.09864, Eq. 15.
    """
    cos, sin = (part[..., None, :] for part in table)  # [..., l, 1, e/2]
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    x_0, x_1 = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([x_0 * cos - x_1 * sin, x_1 * cos + x_0 * sin], axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)
