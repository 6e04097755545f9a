"""Muon: the polynomial of its five steps whatever their grouping, optax's updates and state."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.forced_devices import last_line_on
from tpdiff_jax.optim.muon import COEFFICIENTS, MIN_RATIO, orthogonalize
from tpdiff_jax.optim.optimizer import OptimizerSpec, make_optimizer
from tpdiff_jax.planning.program_flops import matmul_flops

SHAPES = [(12, 12), (12, 18), (12, 19), (12, 36), (36, 12), (8, 72), (72, 8), (1, 5)]


def exact(x):
    """U p(p(p(p(p(S))))) V^T in float64, p(s) = a s + b s^3 + c s^5."""
    a, b, c = COEFFICIENTS
    u, s, vt = np.linalg.svd(np.float64(x), full_matrices=False)
    s = s / np.linalg.norm(s, axis=-1, keepdims=True)
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return u * s[..., None, :] @ vt


def with_singular_values(shape, lowest, seed=0, stack=3):
    """Matrices whose singular values run from 1 to `lowest`, even in the logarithm."""
    rng, rank = np.random.default_rng(seed), min(shape)
    left, right = (np.linalg.qr(rng.normal(size=(stack, n, rank)))[0] for n in shape)
    return np.float32(left * np.geomspace(1.0, lowest, rank) @ right.mT)


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lowest", [0.1, 1e-3, 1e-6])
def test_five_steps_of_one_polynomial_whatever_the_shape(shape, lowest, is_exact):
    x = with_singular_values(shape, lowest)
    found = orthogonalize(jnp.asarray(x), jnp.asarray(COEFFICIENTS), is_exact)
    np.testing.assert_allclose(found, exact(x), atol=1e-4)


def test_matrices_of_low_rank_and_of_zeros_stay_finite_and_of_that_rank():
    rng = np.random.default_rng(0)
    low = np.float32(rng.normal(size=(2, 16, 1)) * rng.normal(size=(2, 1, 64)))
    found = np.asarray(orthogonalize(jnp.asarray(low), jnp.asarray(COEFFICIENTS)))
    np.testing.assert_allclose(found, exact(low), atol=1e-3)
    zeros = jnp.zeros((2, 16, 64))
    np.testing.assert_array_equal(orthogonalize(zeros, jnp.asarray(COEFFICIENTS)), zeros)


@pytest.mark.parametrize(("platform", "in_groups"), [("cpu", True), ("gpu", False), ("tpu", False)])
def test_steps_are_grouped_only_where_products_are_exact(platform, in_groups):
    rule = make_optimizer(OptimizerSpec(name="muon"), optax.constant_schedule(0.1), platform)
    params = {"kernel": jax.ShapeDtypeStruct((2, 8, 24), jnp.float32)}
    update = jax.make_jaxpr(rule.update)(params, jax.eval_shape(rule.init, params), params)
    plain = 2 * 5 * 2.0 * (2 * 8 * 8 * 24 + 8**3)
    assert (matmul_flops(update.jaxpr) < plain) == in_groups
    assert in_groups or matmul_flops(update.jaxpr) == plain


def gradients(seed):
    rng = np.random.default_rng(seed)
    shapes = {
        "square": {"kernel": (2, 8, 8)},
        "wide": {"kernel": (3, 8, 24), "bias": (3, 24)},
        "tall": {"kernel": (2, 32, 8)},
        "stem": {"kernel": (8, 16), "table": (4, 8, 3)},
    }
    is_shape = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=is_shape
    )


def test_updates_and_state_are_those_of_optax():
    """Runs of earlier versions hold the state of optax.contrib.muon, and go on from it."""
    spec = OptimizerSpec(name="muon", weight_decay=0.1, adam_ratio=0.5, clip_norm=1e9)
    schedule = optax.linear_schedule(0.1, 0.3, 5)

    def dimensions(params):
        def one(path, leaf):
            if path[-1].key != "kernel" or leaf.ndim != 3:
                return None
            return optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)

        return jax.tree_util.tree_map_with_path(one, params)

    theirs = optax.chain(
        optax.clip_by_global_norm(spec.clip_norm),
        optax.contrib.muon(
            schedule,
            weight_decay=spec.weight_decay,
            adam_b1=spec.b1,
            adam_b2=spec.b2,
            muon_weight_dimension_numbers=dimensions,
            consistent_rms=0.2,
            adam_learning_rate=lambda count: spec.adam_ratio * schedule(count),
        ),
    )
    ours = make_optimizer(spec, schedule)
    params = gradients(0)
    states = [rule.init(params) for rule in (ours, theirs)]
    for step in range(3):
        found, states[0] = jax.jit(ours.update)(gradients(step), states[0], params)
        expected, states[1] = jax.jit(theirs.update)(gradients(step), states[1], params)
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one, other, atol=2e-4)
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    paths = [
        [(jax.tree_util.keystr(path), leaf.shape, leaf.dtype) for path, leaf in leaves]
        for leaves in map(jax.tree_util.tree_leaves_with_path, states)
    ]
    assert paths[0] == paths[1]


@pytest.mark.parametrize("ratio", [1, 1.5, 2, 3, 4, 9])
def test_products_are_the_fewer_of_the_two_ways(ratio):
    m, n = 16, int(16 * ratio)
    x = jax.ShapeDtypeStruct((2, m, n), jnp.float32)
    found = matmul_flops(jax.make_jaxpr(orthogonalize)(x, jnp.zeros(3)).jaxpr)
    plain = 5 * 2.0 * (2 * m * m * n + m**3)
    grouped = 2.0 * (4 * m * m * n + (2 + 1 + 2 + 3 + 2 + 4) * m**3)
    assert found == 2 * min(plain, grouped)
    assert (grouped < plain) == (ratio > MIN_RATIO)


MESSAGES = """
import json
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from tpdiff_jax.optim.muon import COEFFICIENTS, orthogonalize
from tpdiff_jax.planning.program_cost import program_cost

mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
found = {}
for name, spec in {"short": P(None, "fsdp"), "long": P(None, None, "fsdp")}.items():
    for is_exact in (True, False):
        placed = jax.sharding.NamedSharding(mesh, spec)
        x = jax.ShapeDtypeStruct((2, 64, 256), jnp.float32, sharding=placed)
        step = jax.jit(
            lambda x: orthogonalize(x, jnp.asarray(COEFFICIENTS), is_exact), out_shardings=placed
        )
        cost = program_cost(step.trace(x), jax.devices())
        messages = {c.kind: (c.num_messages, c.sent_bytes) for c in cost.collectives}
        found[f"{name} {is_exact}"] = messages
print(json.dumps(found))
"""


def test_a_divided_long_side_needs_messages_of_the_small_matrix_alone():
    """In a ring all-reduce each of 4 devices sends 2 x 3/4 of the 2 x 64 x 64 numbers."""
    found = json.loads(last_line_on(4, MESSAGES))
    of_norms = 2 * 0.75 * 2 * 4
    of_squares = 2 * 0.75 * 2 * 64 * 64 * 4
    for is_exact, times in ((True, 2), (False, 5)):
        long = found[f"long {is_exact}"]
        count, sent = long.pop("all-reduce")
        assert not long and count == times + 1
        assert sent == pytest.approx(of_norms + times * of_squares)
        assert sum(sent for _, sent in found[f"short {is_exact}"].values()) > sent


ON_A_MESH = """
import jax, jax.numpy as jnp, numpy as np, optax
from tpdiff_jax.devices.mesh import MeshSpec, make_mesh
from tpdiff_jax.devices.param_sharding import state_shardings
from tpdiff_jax.optim.optimizer import OptimizerSpec, make_optimizer

table = (("qkv/kernel", ("layers", "width", "heads")), ("out/kernel", ("layers", "heads", "width")))
rng = np.random.default_rng(0)
shapes = {"qkv": {"kernel": (2, 16, 48)}, "out": {"kernel": (2, 64, 16)}}
params, grads = (
    {name: {"kernel": rng.standard_normal(part["kernel"]).astype(np.float32)}
     for name, part in shapes.items()} for _ in range(2)
)
rule = make_optimizer(OptimizerSpec(name="muon"), optax.constant_schedule(0.1))
expected, _ = jax.jit(rule.update)(grads, rule.init(params), params)
for sizes in (dict(data=1, fsdp=4), dict(data=1, fsdp=2, tensor=2), dict(data=2, fsdp=2)):
    mesh = make_mesh(MeshSpec(**sizes), jax.devices())

    def put(tree):
        return jax.device_put(tree, state_shardings(mesh, table, params, tree, is_muon=True))

    found, _ = jax.jit(rule.update)(put(grads), put(rule.init(params)), put(params))
    for one, several in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(several, one, atol=1e-5, err_msg=str(sizes))
print("equal")
"""


def test_devices_of_a_mesh_update_as_one_does():
    assert last_line_on(4, ON_A_MESH) == "equal"
