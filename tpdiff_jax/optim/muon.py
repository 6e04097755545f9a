"""Muon: steps along the momentum's orthogonal factor, where a network has stacked matrices.

Five Newton-Schulz steps of one polynomial bring the singular values of the momentum X [m, n],
m <= n, near one: with A = X X^T and P(A) = a I + b A + c A^2,

    X <- P(A) X        each step: 4 m^2 n + 2 m^3 FLOPs

P and A commute, so steps can be taken on the small matrix alone, and X is multiplied once:

    A <- A P(A)^2,  Q <- P(A) Q        and X <- Q X at the end

Here that is done in two groups, of two and three steps, with A computed anew between them: what
rounding adds to the smallest eigenvalues of A grows twelvefold a step. Five steps then take
8 m^2 n + 28 m^3 FLOPs in the place of 20 m^2 n + 10 m^3, which is less where n > 1.5 m; elsewhere
steps stay as they are. So they do on GPUs and TPUs, whose products round their operands: Q is large
where singular values are small, and its rounding then is 1 % of an update with TF32 and 10 % with
bfloat16, against 0.05 and 0.5 % step by step (momenta of a real run).

Where n is divided over devices, of all these products X X^T alone needs a message, of m^2 numbers.

Updates and state are those of `optax.contrib.muon`, up to rounding.

Source: Jordan et al., kellerjordan.github.io/posts/muon; Liu et al., arXiv 2502.16982, Eq. 4.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tpdiff_jax.types import Array, Params

GROUPS = (2, 3)
"""Steps taken on X X^T before X is multiplied."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of the polynomial."""
MIN_RATIO = 1.5
"""Longer side over the shorter one from which on groups of steps take fewer FLOPs."""
BETA = 0.95
_EPS = 1e-8
_RMS = 0.2  # of an update's entries, as AdamW's are: Liu et al., section 2.2


def muon(
    learning_rate: optax.Schedule,
    is_matrix: Callable[[Params], Any],
    *,
    weight_decay: float,
    is_exact: bool,
    rest: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Return Muon for stacks of matrices and another rule for the rest.

    Args:
        learning_rate: by applied updates.
        is_matrix: parameters to a tree of booleans: which are stacks of matrices, [..., m, n].
        weight_decay: decoupled, of the matrices.
        is_exact: whether products of float32 numbers are exact to float32.
        rest: rule of all others.
    """
    return optax.partition(
        {
            "muon": optax.chain(
                scale_by_orthogonal_factor(is_exact),
                optax.stateless(lambda updates, _: jax.tree.map(_with_even_rms, updates)),
                optax.add_decayed_weights(weight_decay),
                optax.scale_by_learning_rate(learning_rate),
            ),
            "adam": rest,
        },
        lambda params: jax.tree.map(lambda yes: "muon" if yes else "adam", is_matrix(params)),
    )


def scale_by_orthogonal_factor(is_exact: bool) -> optax.GradientTransformation:
    """Return the transformation of gradients to their Nesterov momentum's orthogonal factor.

    Args:
        is_exact: see `orthogonalize`.
    """

    def init(params: Params) -> optax.contrib.MuonState:
        return optax.contrib.MuonState(
            count=jnp.zeros([], jnp.int32),
            mu=optax.tree.zeros_like(params),
            ns_coeffs=jnp.asarray(COEFFICIENTS),
        )

    def update(
        updates: Params, state: optax.contrib.MuonState, params: Params | None = None
    ) -> tuple[Params, optax.contrib.MuonState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, BETA, 1)
        count = optax.safe_increment(state.count)
        ahead = jax.tree.map(
            lambda m, g: BETA * m + (1 - BETA) * g,
            optax.tree.bias_correction(mu, BETA, optax.safe_increment(count)),
            optax.tree.bias_correction(updates, BETA, count),
        )
        factors = jax.tree.map(lambda x: orthogonalize(x, state.ns_coeffs, is_exact), ahead)
        return factors, optax.contrib.MuonState(count=count, mu=mu, ns_coeffs=state.ns_coeffs)

    return optax.GradientTransformation(init, update)


def orthogonalize(x: Array, coefficients: Array, is_exact: bool = True) -> Array:
    """Bring the singular values of matrices near one, by five steps of one polynomial.

    Args:
        x: [..., m, n]; each matrix is divided by its Frobenius norm first.
        coefficients: a, b, c of the polynomial, [3].
        is_exact: whether products of float32 numbers are exact to float32, so that steps can be
            taken in groups.

    Returns:
        U p(S) V^T, [..., m, n], where U S V^T is x over its norm.
    """
    if x.shape[-2] > x.shape[-1]:
        return orthogonalize(x.mT, coefficients, is_exact).mT
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + _EPS)
    in_groups = is_exact and x.shape[-1] > MIN_RATIO * x.shape[-2]
    for num_steps in GROUPS if in_groups else (1,) * sum(GROUPS):
        x = _steps(x, coefficients.astype(x.dtype), num_steps)
    return x


def _steps(x: Array, coefficients: Array, num_steps: int) -> Array:
    """Some steps, with one product before and one after them that has the size of x."""
    a, b, c = coefficients
    gram = x @ x.mT
    if num_steps == 1:
        return a * x + (b * gram + c * gram @ gram) @ x
    identity = jnp.eye(x.shape[-2], dtype=x.dtype)
    total = factor = a * identity + b * gram + c * gram @ gram
    for _ in range(num_steps - 1):
        gram = gram @ factor @ factor
        factor = a * identity + b * gram + c * gram @ gram
        total = factor @ total
    return total @ x


def _with_even_rms(update: Array) -> Array:
    """Scale so that the entries' root mean square does not depend on the shape."""
    return _RMS * max(update.shape[-2:]) ** 0.5 * update
