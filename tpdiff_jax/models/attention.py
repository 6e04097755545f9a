"""Self-attention over one axis of tokens, with rotary positions and normalised queries and keys.

Everything before the last two axes is batch, so the same module attends within a frame
([b, f, l, d]), along time ([b, l, f, d]) or over all tokens at once ([b, f l, d]). Several streams
of tokens, each with its own projections, can attend to each other as one sequence.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.layers import RMSNorm
from tpdiff_jax.models.rope import rotate_pairs
from tpdiff_jax.types import Array

Attend = Callable[[Array, Array, Array], Array]
"""Queries, keys and values [..., l, n, e] to their attention, of the queries' shape."""


class Visibility(NamedTuple):
    """Which keys a query sees: those of its own segment, and, with ranks, none of a later rank.

    Kept as one number a token; the square of queries and keys is never stored.

    Attributes:
        segments: integers, [b, l]; a token sees its own segment only.
        ranks: [l], or None: everything sees everything inside a segment. Causal in time where the
            rank of a token is its frame's position.
    """

    segments: Array
    ranks: Array | None = None

    def allowed(self) -> Array:
        """Booleans [b, 1, q, k] that broadcast over heads."""
        segments = self.segments[:, None, :]
        allowed = segments[..., :, None] == segments[..., None, :]
        if self.ranks is None:
            return allowed
        return allowed & (self.ranks[:, None] >= self.ranks[None, :])


def dot_product_attention(
    q: Array, k: Array, v: Array, visibility: Visibility | None = None
) -> Array:
    """softmax(q k^T / sqrt(e)) v, the softmax in float32 and over the visible keys.

    Args:
        q: queries, [..., l, n, e].
        k: keys, [..., l, n, e].
        v: values, [..., l, n, e].
        visibility: which keys a query sees, for one leading axis b; None: all of them.

    Returns:
        [..., l, n, e], dtype of v.

    Source: Vaswani et al., arXiv 1706.03762, Eq. 1.
    """
    scores = jnp.einsum("...qne,...kne->...nqk", q * q.shape[-1] ** -0.5, k)
    scores = scores.astype(jnp.float32)
    if visibility is not None:
        scores = jnp.where(visibility.allowed(), scores, -jnp.inf)  # every token sees itself
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("...nqk,...kne->...qne", weights, v)


class SelfAttention(nnx.Module):
    """Multi-head self-attention; `qk_norm` applies RMSNorm per head before the rotation.

    Without `has_output` the heads are handed back side by side, for a block that projects them
    together with something else.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qk_norm: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        has_output: bool = True,
    ):
        init = nnx.initializers.xavier_uniform()
        self.qkv = nnx.Linear(dim, 3 * dim, dtype=dtype, kernel_init=init, rngs=rngs)
        self.out = (
            nnx.Linear(dim, dim, dtype=dtype, kernel_init=init, rngs=rngs) if has_output else None
        )
        self.q_norm = RMSNorm(dim // num_heads) if qk_norm else None
        self.k_norm = RMSNorm(dim // num_heads) if qk_norm else None
        self.num_heads = num_heads

    def __call__(
        self,
        x: Array,
        table: tuple[Array, Array] | None,
        visibility: Visibility | None = None,
        attend: Attend | None = None,
    ) -> Array:
        """Attend over the last token axis, or over those that `attend` mixes.

        Args:
            x: [..., l, d].
            table: rotary cos and sin, [l, d / num_heads / 2], or with more of x's token axes;
                None: no positions.
            visibility: which keys a query sees; None: all of them.
            attend: the attention; None: `dot_product_attention` with `visibility`.

        Returns:
            [..., l, d].
        """
        return joint_attention([self], [x], table, visibility, attend)[0]

    def project(self, x: Array) -> tuple[Array, Array, Array]:
        """[..., l, d] -> normalised queries, normalised keys, values, [..., l, n, e] each."""
        q, k, v = (
            part.reshape(*x.shape[:-1], self.num_heads, -1)  # [..., l, n, e]
            for part in jnp.split(self.qkv(x), 3, axis=-1)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v

    def merge(self, heads: Array) -> Array:
        """[..., l, n, e] -> [..., l, d]."""
        joined = heads.reshape(*heads.shape[:-2], -1)
        return joined if self.out is None else self.out(joined)


def joint_attention(
    attentions: Sequence[SelfAttention],
    streams: Sequence[Array],
    table: tuple[Array, Array] | None,
    visibility: Visibility | None = None,
    attend: Attend | None = None,
) -> list[Array]:
    """Let streams of tokens attend to each other as one sequence, each through its own weights.

    Args:
        attentions: weights of each stream.
        streams: tokens of each stream, [..., l_i, d].
        table: rotary cos and sin of the whole sequence, [l, e / 2]; None: no positions.
        visibility: which keys a query sees, over the whole sequence; None: all of them.
        attend: the attention; None: `dot_product_attention` with `visibility`.

    Returns:
        Tokens of each stream, [..., l_i, d].

    Source: Esser et al., arXiv 2403.03206, section 4 (MM-DiT).
    """
    parts = [a.project(x) for a, x in zip(attentions, streams, strict=True)]
    q, k, v = (jnp.concatenate(p, axis=-3) for p in zip(*parts, strict=True))
    if table is not None:
        q, k = rotate_pairs(q, table), rotate_pairs(k, table)
    attend = attend or functools.partial(dot_product_attention, visibility=visibility)
    heads = attend(q, k, v)
    lengths = [x.shape[-2] for x in streams]
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths) - 1)]
    split = jnp.split(heads, ends, axis=-3)
    return [a.merge(part) for a, part in zip(attentions, split, strict=True)]


def attention_flops(num_tokens: float, num_keys: float, dim: int) -> float:
    """Matrix-product FLOPs of `SelfAttention`: projections 8 l d^2, scores and values 4 l k d."""
    return 8.0 * num_tokens * dim**2 + 4.0 * num_tokens * num_keys * dim
