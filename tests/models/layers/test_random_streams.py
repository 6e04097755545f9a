"""Parts of networks are built from the keys of nnx, without the time that its streams take."""

import jax
import numpy as np
import pytest
from flax import nnx

from tpdiff_jax.models.layers.random_streams import random_streams

KEY = jax.random.key(7)


class Part(nnx.Module):
    """Draws of every kind: of a linear map, a convolution, a table, and keys taken by hand."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(3, 4, bias_init=nnx.initializers.normal(), rngs=rngs)
        self.conv = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.table = nnx.Embed(5, 2, rngs=rngs)
        self.own = nnx.Param(jax.random.normal(rngs.params(), (3,)))
        self.other = nnx.Param(jax.random.normal(rngs(), (3,)))


def built(rngs: nnx.Rngs) -> dict:
    return nnx.to_pure_dict(nnx.state(Part(rngs), nnx.Param))


@pytest.mark.parametrize(
    "way",
    [
        lambda make: make(KEY),
        lambda make: jax.jit(make)(KEY),
        lambda make: jax.vmap(make)(jax.random.split(KEY, 2)),
        lambda make: jax.jit(jax.vmap(make))(jax.random.split(KEY, 2)),
    ],
    ids=["eager", "compiled", "stacked", "stacked and compiled"],
)
def test_parameters_are_those_of_nnx(way):
    ours = way(lambda key: built(random_streams(key)))
    theirs = way(lambda key: built(nnx.Rngs(key)))
    assert len(jax.tree.leaves(theirs)) == 7
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_no_key_comes_twice_and_each_is_folded_in_by_its_number():
    stream = random_streams(KEY)
    keys = [stream(), stream.params(), stream(), stream.dropout()]
    for number, key in enumerate(keys):
        assert key == jax.random.fold_in(KEY, number)


def test_no_traced_value_is_asked_for_its_sharding(monkeypatch):
    """Some JAX answers with all operations that the value came from, which takes long to write."""
    asked = []

    def sharding(tracer):
        asked.append(tracer)
        raise AttributeError("sharding")

    monkeypatch.setattr(jax.core.Tracer, "sharding", property(sharding))
    jax.eval_shape(lambda key: built(random_streams(key)), KEY)
    assert not asked
