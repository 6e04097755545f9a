"""Layers whose parameters devices share out are made whole where they are computed again."""

import json

import jax

from tests.forced_devices import last_line_on
from tpdiff_jax.devices.mesh import MeshLayout, MeshSpec, make_mesh
from tpdiff_jax.models.layers.one_device import ONE_DEVICE

TABLE = (
    (r"blocks/in/kernel", ("layers", "width", "hidden")),
    (r"blocks/out/kernel", ("layers", "hidden", "width")),
    (r".*/bias", ()),
)

RUN = """
import dataclasses, json
import jax, jax.numpy as jnp, numpy as np
from tests.devices.test_gathered_layers import TABLE
from tpdiff_jax.devices.mesh import MeshLayout, MeshSpec, make_mesh, sharding
from tpdiff_jax.devices.param_sharding import state_shardings
from tpdiff_jax.models import VideoDiT, VideoDiTConfig
from tpdiff_jax.types import Positions

mesh = make_mesh(MeshSpec(data=1, fsdp=2, tensor=2))
gather = MeshLayout(mesh).gather_layer(TABLE, "blocks")
layer = {
    "in": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8), "lora_a": jnp.ones((4, 2))},
    "out": {"kernel": jnp.ones((8, 4))},
}
axes = {"in": {"kernel": ("width", "hidden"), "bias": (), "lora_a": ()},
        "out": {"kernel": ("hidden", "width")}}
places = jax.tree.map(lambda leaf, names: sharding(mesh, *names), layer, axes)
layer = jax.device_put(layer, places)
whole = jax.jit(gather)(layer)
shapes = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data.shape, whole)
slope = np.arange(32.0).reshape(4, 8)
grad = jax.jit(jax.grad(lambda tree: jnp.sum(slope * gather(tree)["in"]["kernel"])))(layer)
np.testing.assert_array_equal(grad["in"]["kernel"], slope)

sizes = dict(hidden_size=32, num_heads=2, depth=3, patch_size=4, num_classes=3)
rng = np.random.default_rng(0)
x = rng.standard_normal((4, 3, 8, 8, 1)).astype(np.float32)
positions = Positions(jnp.arange(3.0), jnp.arange(8.0), jnp.arange(8.0))
found = {}
for remat in ("none", "dots", "full"):
    network = VideoDiT(VideoDiTConfig(remat=remat, **sizes))
    if not found:
        params = jax.tree.map(
            lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32) * 0.2,
            jax.eval_shape(network.init, jax.random.key(0)),
        )
    for layout in (network.layout, MeshLayout(mesh)):
        here = dataclasses.replace(network, layout=layout)
        placed = params
        if layout is not network.layout:
            places = state_shardings(mesh, network.param_axes, params, params)
            placed = jax.device_put(params, places)

        def loss(params):
            out = here.apply(params, x, jnp.full(4, 500.0), positions, (1, 1, 1), None)
            return jnp.mean(out**2)

        found[remat, layout is network.layout] = jax.device_get(
            jax.jit(jax.value_and_grad(loss))(placed)
        )
expected = found["none", True]
for key, values in found.items():
    for one, several in zip(jax.tree.leaves(expected), jax.tree.leaves(values), strict=True):
        np.testing.assert_allclose(several, one, rtol=1e-4, atol=1e-6, err_msg=str(key))
print(json.dumps(shapes))
"""


def test_a_layer_is_whole_but_for_heads_and_hidden_units_and_its_gradient_is_its_own() -> None:
    shapes = json.loads(last_line_on(4, RUN))
    assert shapes == {
        "in": {"kernel": [4, 4], "bias": [8], "lora_a": [4, 2]},
        "out": {"kernel": [4, 4]},
    }


def test_nothing_is_gathered_where_parameters_are_whole() -> None:
    mesh = make_mesh(MeshSpec(data=1), jax.devices()[:1])
    assert MeshLayout(mesh).gather_layer(TABLE, "blocks") is None
    assert ONE_DEVICE.gather_layer(TABLE, "blocks") is None
