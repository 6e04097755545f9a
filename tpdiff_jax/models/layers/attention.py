"""Attention over one axis of tokens, with rotary positions and normalised queries and keys.

Everything before the last two axes is batch, so the same module attends within a frame
([b, f, l, d]), along time ([b, l, f, d]) or over all tokens at once ([b, f l, d]). Several streams
of tokens, each with its own projections, can attend to each other as one sequence.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.layers.basic import Linear, RMSNorm
from tpdiff_jax.models.layers.rope import rotate_pairs
from tpdiff_jax.types import Array

Attend = Callable[[Array, Array, Array], Array]
"""Queries, keys and values [..., l, n, e] to their attention, of the queries' shape."""
JointAttend = Callable[[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]], tuple[Array, ...]]
"""The same for several streams of tokens: one array a stream in every tuple."""
RotaryTable = tuple[Array, Array]
"""Rotary cosines and sines."""


def dot_product_attention(q: Array, k: Array, v: Array, key_mask: Array | None = None) -> Array:
    """softmax(q k^T / sqrt(e)) v, scores and softmax in float32, over the visible keys.

    Args:
        q: queries, [..., l, n, e].
        k: keys, [..., l, n, e].
        v: values, [..., l, n, e].
        key_mask: True for keys to be seen, at least one a sample, [b, l], where b is the only
            leading axis; None: all of them.

    Returns:
        [..., l, n, e], dtype of v.

    Source: Vaswani et al., arXiv 1706.03762, Eq. 1.
    """
    axes, scaled = "...qne,...kne->...nqk", q * q.shape[-1] ** -0.5
    scores = jnp.einsum(axes, scaled, k, preferred_element_type=jnp.float32)
    if key_mask is not None:
        scores = jnp.where(key_mask[:, None, None, :], scores, -jnp.inf)
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
        self.qkv = Linear(dim, 3 * dim, dtype=dtype, kernel_init=init, rngs=rngs)
        self.out = (
            Linear(dim, dim, dtype=dtype, kernel_init=init, rngs=rngs) if has_output else None
        )
        self.q_norm = RMSNorm(dim // num_heads) if qk_norm else None
        self.k_norm = RMSNorm(dim // num_heads) if qk_norm else None
        self.num_heads = num_heads

    def __call__(
        self, x: Array, table: RotaryTable | None, attend: Attend = dot_product_attention
    ) -> Array:
        """Attend over the last token axis, or over those that `attend` mixes.

        Args:
            x: [..., l, d].
            table: rotary cos and sin, [l, d / num_heads / 2], or with more of x's token axes;
                None: no positions.
            attend: the attention.

        Returns:
            [..., l, d].
        """
        return self.merge(attend(*self.project(x, table)))

    def project(self, x: Array, table: RotaryTable | None) -> tuple[Array, Array, Array]:
        """[..., l, d] -> queries and keys, normalised and rotated, and values, [..., l, n, e]."""
        q, k, v = (
            part.reshape(*x.shape[:-1], self.num_heads, -1)  # [..., l, n, e]
            for part in jnp.split(self.qkv(x), 3, axis=-1)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if table is not None:
            q, k = rotate_pairs(q, table), rotate_pairs(k, table)
        return q, k, v

    def merge(self, heads: Array) -> Array:
        """[..., l, n, e] -> [..., l, d]."""
        joined = heads.reshape(*heads.shape[:-2], -1)
        return joined if self.out is None else self.out(joined)


class Attention(nnx.Module):
    """Multi-head attention of tokens to a context, each projection with a matrix of its own.

    `qk_norm` applies RMSNorm over all heads together, before they are split and rotated. The
    output has a bias in any case.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        num_heads: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        *,
        use_bias: bool = False,
        qk_norm: bool = False,
    ):
        def linear(d_in: int, has_bias: bool = use_bias) -> Linear:
            return Linear(d_in, dim, use_bias=has_bias, dtype=dtype, rngs=rngs)

        self.q, self.k, self.v = linear(dim), linear(context_dim), linear(context_dim)
        self.out = linear(dim, True)
        self.q_norm = RMSNorm(dim) if qk_norm else None
        self.k_norm = RMSNorm(dim) if qk_norm else None
        self.num_heads = num_heads

    def __call__(
        self, x: Array, context: Array, attend: Attend, table: RotaryTable | None = None
    ) -> Array:
        """Let tokens look at a context.

        Args:
            x: [..., l, d].
            context: [..., m, e], whose leading axes are such that `attend` takes them; x itself
                for self-attention.
            attend: the attention.
            table: rotary cos and sin of tokens and context alike,
                [..., l, d / num_heads / 2]; None: no positions.

        Returns:
            [..., l, d].
        """
        q, k = self.q(x), self.k(context)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (
            part.reshape(*part.shape[:-1], self.num_heads, -1)  # [..., n, e]
            for part in (q, k, self.v(context))
        )
        if table is not None:
            q, k = rotate_pairs(q, table), rotate_pairs(k, table)
        return self.out(attend(q, k, v).reshape(x.shape))


def joint_attention(
    attentions: Sequence[SelfAttention],
    streams: Sequence[Array],
    tables: Sequence[RotaryTable | None],
    attend: JointAttend,
) -> list[Array]:
    """Let streams of tokens attend to each other, each through its own weights.

    Args:
        attentions: weights of each stream.
        streams: tokens of each stream, [..., l_i, d].
        tables: rotary cos and sin of each stream; None: no positions.
        attend: the attention of all streams to all of them.

    Returns:
        Tokens of each stream, [..., l_i, d].

    Source: Esser et al., arXiv 2403.03206, section 4 (MM-DiT).
    """
    parts = [a.project(x, table) for a, x, table in zip(attentions, streams, tables, strict=True)]
    q, k, v = zip(*parts, strict=True)
    return [a.merge(heads) for a, heads in zip(attentions, attend(q, k, v), strict=True)]


def attention_flops(num_tokens: float, num_keys: float, dim: int) -> float:
    """Count the matrix-product FLOPs of `SelfAttention`.

        8 l d^2 for projections, 4 l k d for scores and values

    Args:
        num_tokens: l, queries.
        num_keys: k, keys that each of them sees.
        dim: d, width.

    Returns:
        FLOPs, multiplications and additions.
    """
    return 8.0 * num_tokens * dim**2 + 4.0 * num_tokens * num_keys * dim
