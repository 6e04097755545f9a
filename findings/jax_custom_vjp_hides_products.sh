#!/usr/bin/env bash
# jax 0.10.2, jax.checkpoint with a policy over functions that have a gradient of their own (jax.custom_vjp).
#
# Good guess: with the policy dots_saveable the backward pass keeps the results of matrix products, whoever
#   computes them.
# What happens: the policy is asked about the operations that the forward rule consists of. A rule that computes its
#   result by the product itself is one; a rule that calls the decorated function, which is the same text with one
#   word less, is a call, of which the policy knows nothing: it keeps nothing, and every product is computed again,
#   as with nothing_saveable. Values and gradients are the same, so that only time and memory show it.
# Seen: products in a gradient of two layers, for no policy, dots_saveable, nothing_saveable: plain 6, 6, 8; a rule
#   with the product itself 6, 6, 8; a rule that calls its own function 6, 8, 8.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat > "$dir/count.py" <<'PY'
import jax
import jax.numpy as jnp


def plain(x, kernel):
    return x @ kernel


def with_rule(calls_itself):
    @jax.custom_vjp
    def product(x, kernel):
        return plain(x, kernel)

    def forward(x, kernel):
        return (product if calls_itself else plain)(x, kernel), (x, kernel)

    def backward(kept, dy):
        x, kernel = kept
        return dy @ kernel.T, x.T @ dy

    product.defvjp(forward, backward)
    return product


def products(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        total += equation.primitive.name == "dot_general"
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(inner):
                total += products(getattr(inner, "jaxpr", inner))
    return total


def is_program(value):
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def counts(product):
    def loss(x, a, b):
        return jnp.sin(product(jnp.sin(product(x, a)), b)).sum()

    policies = jax.checkpoint_policies
    kept = [
        loss,
        jax.checkpoint(loss, policy=policies.dots_saveable),
        jax.checkpoint(loss, policy=policies.nothing_saveable),
    ]
    square = jnp.ones((4, 4))
    gradients = [jax.grad(one, (0, 1, 2)) for one in kept]
    return [products(jax.make_jaxpr(g)(square, square, square).jaxpr) for g in gradients]


found = {
    "plain": counts(plain),
    "its rule is the product": counts(with_rule(False)),
    "its rule calls the function": counts(with_rule(True)),
}
print(f"jax {jax.__version__}: products with no policy, dots_saveable, nothing_saveable: {found}")
assert found["plain"] == found["its rule is the product"] == [6, 6, 8], "it has changed"
assert found["its rule calls the function"] == [6, 8, 8], "it has changed"
PY
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile jax==0.10.2 jaxlib==0.10.2 2> /dev/null
cd "$dir" && JAX_PLATFORMS=cpu "$dir/venv/bin/python" count.py
echo "as described"
