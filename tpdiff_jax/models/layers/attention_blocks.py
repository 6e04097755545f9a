"""Attention in blocks of keys with a running softmax, forward and backward, on any device.

One block's scores exist at a time, so that memory grows with the tokens, not with their square:

    m' = max(m, max_k s),  p = exp(s - m'),  a = exp(m - m'),  l' = a l + sum_k p,  o' = a o + p v

and o / l at the end. The backward pass keeps o and L = m + log l and computes scores anew:

    p = exp(s - L),  ds = p (do v^T - sum_e o do),  dq = ds k,  dk = ds^T q,  dv = p^T do

On CPUs a block's scores stay in the caches, where those of all keys would not. Sizes were found by
`python -m bench.attention` on two cores. Below, r are rows: every head of every
sample.

Source: Dao et al., arXiv 2205.14135, algorithms 1 and 4; Milakov and Gimelshein, arXiv 1805.02867.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tpdiff_jax.types import Array

BLOCK_KEYS = 64
GROUP_SCORES = 2**19
"""Most scores of one block, over the rows that are computed together: 2 MiB."""
_HIDDEN = float(jnp.finfo(jnp.float32).min)  # infinity would leave a hidden block undefined


def blockwise_attention(q: Array, k: Array, v: Array, key_mask: Array | None = None) -> Array:
    """`dot_product_attention` in blocks of keys, for derivatives in reverse mode only.

    Args:
        q: queries, [..., l, n, e].
        k: keys, [..., m, n, e].
        v: values, [..., m, n, e].
        key_mask: True for keys to be seen, at least one a sample, bool [b, m], where b is the only
            axis before l; None: all of them.

    Returns:
        [..., l, n, e], dtype of v.

    Source: Dao et al., arXiv 2205.14135, algorithm 1.
    """
    rows = [x.swapaxes(-3, -2).reshape(-1, x.shape[-3], x.shape[-1]) for x in (q, k, v)]
    num_heads, num_keys = k.shape[-2], k.shape[-3]
    is_seen = None
    if key_mask is not None:
        is_seen = jnp.repeat(key_mask, num_heads, axis=0)
    elif num_keys % _num_blocks(num_keys):
        is_seen = jnp.ones((len(rows[1]), num_keys), bool)  # all but the padding
    out = _attend(*rows, is_seen)  # [r, l, e]
    return out.reshape(*q.shape[:-3], num_heads, *out.shape[1:]).swapaxes(-3, -2)


@jax.custom_vjp
def _attend(q: Array, k: Array, v: Array, is_seen: Array | None) -> Array:
    return _forward(q, k, v, is_seen)[0]


def _forward(q: Array, k: Array, v: Array, is_seen: Array | None) -> tuple[Array, Any]:
    """Rows' attention, [r, l, e], and what the backward pass keeps."""

    def of_group(q: Array, k: Array, v: Array, is_seen: Array | None) -> tuple[Array, Array]:
        def step(carry: tuple[Array, Array, Array], block: Any) -> tuple[Any, None]:
            out, largest, total = carry
            k, v, is_seen = block
            scores = _scores(q, k, is_seen)  # [r, l, k]
            larger = jnp.maximum(largest, scores.max(axis=-1, keepdims=True))
            weights, shrink = jnp.exp(scores - larger), jnp.exp(largest - larger)
            out = out * shrink + _product("rlk,rke->rle", weights.astype(v.dtype), v)
            return (out, larger, total * shrink + weights.sum(axis=-1, keepdims=True)), None

        one = jnp.full((*q.shape[:2], 1), _HIDDEN)
        start = (jnp.zeros((*q.shape[:2], v.shape[-1])), one, jnp.zeros_like(one))
        (out, largest, total), _ = jax.lax.scan(step, start, _blocks((k, v, is_seen)))
        return (out / total).astype(v.dtype), largest + jnp.log(total)

    out, log_sum = _in_groups(of_group, (_scaled(q), k, v, is_seen))
    return out, (q, k, v, is_seen, out, log_sum)


def _backward(kept: Any, d_out: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, is_seen, out, log_sum = kept

    def of_group(
        q: Array,
        k: Array,
        v: Array,
        is_seen: Array | None,
        out: Array,
        log_sum: Array,
        d_out: Array,
    ) -> tuple[Array, Array, Array]:
        mean = _product("rle,rle->rl", d_out, out)[..., None]  # sum over keys of p times its slope

        def step(d_q: Array, block: Any) -> tuple[Array, tuple[Array, Array]]:
            k, v, is_seen = block
            weights = jnp.exp(_scores(q, k, is_seen) - log_sum)
            d_v = _product("rlk,rle->rke", weights.astype(v.dtype), d_out)
            d_scores = weights * (_product("rle,rke->rlk", d_out, v) - mean)
            d_scores = d_scores.astype(q.dtype)
            d_q += _product("rlk,rke->rle", d_scores, k)
            return d_q, (_product("rlk,rle->rke", d_scores, q).astype(k.dtype), d_v.astype(v.dtype))

        d_q, blocks = jax.lax.scan(step, jnp.zeros(q.shape), _blocks((k, v, is_seen)))
        d_k, d_v = (
            part.swapaxes(0, 1).reshape(len(part[0]), -1, part.shape[-1])[:, : k.shape[1]]
            for part in blocks
        )
        return _scaled(d_q).astype(q.dtype), d_k, d_v

    gradients = _in_groups(of_group, (_scaled(q), k, v, is_seen, out, log_sum, d_out))
    return (*gradients, None)


_attend.defvjp(_forward, _backward)


def _scaled(q: Array) -> Array:
    return q * q.shape[-1] ** -0.5


def _scores(q: Array, k: Array, is_seen: Array | None) -> Array:
    scores = _product("rle,rke->rlk", q, k)
    return scores if is_seen is None else jnp.where(is_seen[:, None], scores, _HIDDEN)


def _product(axes: str, a: Array, b: Array) -> Array:
    return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)


def _num_blocks(num_keys: int) -> int:
    return -(-num_keys // BLOCK_KEYS)


def _blocks(arrays: Any) -> Any:
    """[r, m, ...] -> [c, r, k, ...], m padded to c blocks of k."""

    def split(x: Array) -> Array:
        count = _num_blocks(x.shape[1])
        x = jnp.pad(x, [(0, -x.shape[i] % count if i == 1 else 0) for i in range(x.ndim)])
        return x.reshape(len(x), count, -1, *x.shape[2:]).swapaxes(0, 1)

    return jax.tree.map(split, arrays)


def _in_groups(function: Callable[..., Any], arrays: tuple[Array | None, ...]) -> Any:
    """The function of rows, in as many groups one after another as their scores need."""
    num_rows, num_queries = jax.tree.leaves(arrays)[0].shape[:2]
    most = max(1, GROUP_SCORES // (BLOCK_KEYS * num_queries))
    size = max(size for size in range(1, num_rows + 1) if num_rows % size == 0 and size <= most)
    if size == num_rows:
        return function(*arrays)
    split = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), arrays)
    results = jax.lax.map(lambda group: function(*group), split)
    return jax.tree.map(lambda x: x.reshape(num_rows, *x.shape[2:]), results)
