"""Parameters lie by name; what belongs to a parameter lies with it; nothing large is overlooked."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from tpdiff_jax.devices.mesh import MESH_AXES
from tpdiff_jax.devices.param_axes import axes_of_path
from tpdiff_jax.devices.param_sharding import long_side_axes, state_shardings
from tpdiff_jax.optim.optimizer import OPTIMIZERS, OptimizerSpec, make_optimizer

MESH = AbstractMesh((1, 2, 1, 2), MESH_AXES)
TABLE = (
    (r"in/kernel", (None, "width")),
    (r"blocks/\w+/kernel", ("layers", "width", "heads")),
    (r".*/bias", ()),
)
SHAPES = {
    "in": {"kernel": (4, 8), "bias": (8,)},
    "blocks": {"qkv": {"kernel": (3, 8, 24), "bias": (3, 24)}},
}
SPECS = {
    "in": {"kernel": PartitionSpec(None, "fsdp"), "bias": PartitionSpec()},
    "blocks": {"qkv": {"kernel": PartitionSpec(None, "fsdp", "tensor"), "bias": PartitionSpec()}},
}


def abstract(shapes):
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def specs(tree):
    return jax.tree.map(lambda s: s.spec, tree)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_lie_like_their_parameters_and_counters_on_every_device(name):
    params = abstract(SHAPES)
    optimizer = make_optimizer(OptimizerSpec(name=name), optax.constant_schedule(0.1))
    state = jax.eval_shape(optimizer.init, params)
    placed = specs(state_shardings(MESH, TABLE, params, {"p": params, "o": state}))
    assert placed["p"] == SPECS
    # Every leaf with a parameter's shape is divided as that parameter is.
    by_shape = {(4, 8): SPECS["in"]["kernel"], (3, 8, 24): SPECS["blocks"]["qkv"]["kernel"]}
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(placed["o"]), strict=True)
    seen = [shape for shape, spec in ((a.shape, s) for a, s in pairs) if shape in by_shape
            and by_shape[shape] == spec]  # fmt: skip
    assert seen.count((4, 8)) == 2  # AdamW's two moments: Muon leaves the rest to AdamW
    assert seen.count((3, 8, 24)) == {"adamw": 2, "muon": 1}[name]
    counters = [s for a, s in zip(jax.tree.leaves(state), jax.tree.leaves(placed["o"]), strict=True)
                if a.shape == ()]  # fmt: skip
    assert counters and set(counters) == {PartitionSpec()}


FSDP = AbstractMesh((1, 4, 1, 1), MESH_AXES)
BOTH = AbstractMesh((1, 2, 1, 2), MESH_AXES)
TAKEN = AbstractMesh((1, 1, 1, 2), MESH_AXES)


@pytest.mark.parametrize(
    ("mesh", "axes", "shape", "expected"),
    [
        (FSDP, ("layers", "width", "heads"), (2, 8, 24), ("layers", "heads", "width")),
        (FSDP, ("layers", "hidden", "width"), (2, 32, 8), ("layers", "width", "hidden")),
        (FSDP, ("layers", "width", None), (2, 8, 24), ("layers", None, "width")),
        (FSDP, ("layers", "heads", "width"), (2, 8, 8), ("layers", "heads", "width")),  # square
        (FSDP, ("layers", "heads", "width"), (2, 8, 24), ("layers", "heads", "width")),  # it is
        (FSDP, ("layers", "width", "heads"), (2, 8, 26), ("layers", "width", "heads")),  # uneven
        (BOTH, ("layers", "width", "heads"), (2, 8, 24), ("layers", "width", "heads")),  # taken
        (TAKEN, ("layers", "width", "heads"), (2, 8, 24), ("layers", "width", "heads")),
        (FSDP, ("width", "hidden"), (8, 24), ("width", "hidden")),  # no stack: Adam's
        (FSDP, (), (2, 24), ()),
    ],
)
def test_muons_matrices_are_divided_along_their_longer_side(mesh, axes, shape, expected):
    assert long_side_axes(mesh, axes, shape) == expected


def test_only_muon_moves_the_divided_side():
    params = abstract(SHAPES)
    adam, muon = (
        specs(state_shardings(FSDP, TABLE, params, params, is_muon=is_muon))
        for is_muon in (False, True)
    )
    kernel = adam["blocks"]["qkv"].pop("kernel"), muon["blocks"]["qkv"].pop("kernel")
    assert kernel == (
        PartitionSpec(None, "fsdp", "tensor"), PartitionSpec(None, "tensor", "fsdp"),
    )  # fmt: skip
    assert adam == muon


def test_a_parameter_without_a_pattern_is_refused():
    with pytest.raises(ValueError, match="matches out/kernel"):
        axes_of_path(TABLE, "out/kernel")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"in": {"kernel": (4, 9)}}, r"width of in/kernel=9 .* mesh\.fsdp=2"),
        ({"blocks": {"qkv": {"kernel": (3, 8)}}}, "blocks/qkv/kernel of shape"),
    ],
)
def test_a_parameter_that_the_mesh_does_not_divide_is_refused(shapes, message):
    params = abstract(shapes)
    with pytest.raises(ValueError, match=message):
        state_shardings(MESH, TABLE, params, params)


def test_a_large_leaf_of_no_parameter_is_refused():
    params = abstract(SHAPES)
    state = {"params": params, "table": jax.ShapeDtypeStruct((65537,), jnp.float32)}
    with pytest.raises(ValueError, match=r"\['table'\] .* belongs to no parameter"):
        state_shardings(MESH, TABLE, params, state)
