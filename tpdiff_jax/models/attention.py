"""Self-attention over one axis of tokens, with rotary positions and normalised queries and keys.

Everything before the last two axes is batch, so the same module attends within a frame
([b, f, l, d]), along time ([b, l, f, d]) or over all tokens at once ([b, f l, d]).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.layers import RMSNorm
from tpdiff_jax.models.rope import rotate_pairs
from tpdiff_jax.types import Array


def dot_product_attention(q: Array, k: Array, v: Array) -> Array:
    """softmax(q k^T / sqrt(e)) v, the softmax in float32.

    Args:
        q: queries, [..., l, n, e].
        k: keys, [..., l, n, e].
        v: values, [..., l, n, e].

    Returns:
        [..., l, n, e], dtype of v.

    Source: Vaswani et al., arXiv 1706.03762, Eq. 1.
    """
    scores = jnp.einsum("...qne,...kne->...nqk", q * q.shape[-1] ** -0.5, k)
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(v.dtype)
    return jnp.einsum("...nqk,...kne->...qne", weights, v)


class SelfAttention(nnx.Module):
    """Multi-head self-attention; `qk_norm` applies RMSNorm per head before the rotation."""

    def __init__(self, dim: int, num_heads: int, qk_norm: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        init = nnx.initializers.xavier_uniform()
        self.qkv = nnx.Linear(dim, 3 * dim, dtype=dtype, kernel_init=init, rngs=rngs)
        self.out = nnx.Linear(dim, dim, dtype=dtype, kernel_init=init, rngs=rngs)
        self.q_norm = RMSNorm(dim // num_heads) if qk_norm else None
        self.k_norm = RMSNorm(dim // num_heads) if qk_norm else None
        self.num_heads = num_heads

    def __call__(self, x: Array, table: tuple[Array, Array]) -> Array:
        """Attend over the last token axis.

        Args:
            x: [..., l, d].
            table: rotary cos and sin, [l, d / num_heads / 2].

        Returns:
            [..., l, d].
        """
        q, k, v = (
            part.reshape(*x.shape[:-1], self.num_heads, -1)  # [..., l, n, e]
            for part in jnp.split(self.qkv(x), 3, axis=-1)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate_pairs(q, table), rotate_pairs(k, table)
        return self.out(dot_product_attention(q, k, v).reshape(x.shape))


def attention_flops(num_tokens: float, num_keys: float, dim: int) -> float:
    """Matrix-product FLOPs of `SelfAttention`: projections 8 l d^2, scores and values 4 l k d."""
    return 8.0 * num_tokens * dim**2 + 4.0 * num_tokens * num_keys * dim
