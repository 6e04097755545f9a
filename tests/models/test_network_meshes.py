"""Several devices give the outputs and gradients of one: networks with text or with levels."""

import pytest

from tests.forced_devices import last_line_on

RUN = """
import dataclasses, math
import jax, jax.numpy as jnp, numpy as np
from tests.models.animatediff import animatediff_reference
from tests.models.flux import flux_reference
from tests.models.full_size import at
from tests.models.modelscope import modelscope_reference
from tests.models.open_sora import open_sora_reference
from tests.models.wan import wan_reference
from tpdiff_jax.devices.mesh import MeshLayout, MeshSpec, make_mesh
from tpdiff_jax.devices.param_sharding import state_shardings
from tpdiff_jax.models import (
    AnimateDiff, Flux, ModelScope, OpenSora, VideoDiT, VideoDiTConfig, Wan
)

rng = np.random.default_rng(0)
MESHES = (dict(data=1, context=2, tensor=2), dict(data=1, fsdp=2, context=2))
CAUSAL = dataclasses.replace(flux_reference.CONFIG, is_causal=True)
STD = {"open_sora stdit": 0.1}  # 1.0 attends over time without a norm: at 0.2 float32 says little
SCANNED = ("causal flux", "open_sora stdit3", "wan")
LEVELS = VideoDiTConfig(
    channels=2, hidden_size=24, depth=2, num_heads=2, mlp_ratio=2.0, level_channels=(4, 6)
)
CASES = {
    "video_dit levels": (
        VideoDiT(LEVELS),
        (
            rng.standard_normal((2, 3, 8, 16, 2)).astype(np.float32),
            np.float32([100.0, 900.0]),
            {"label": np.array([[3], [7]])},
        ),
    ),
    "flux": (Flux(flux_reference.CONFIG), flux_reference.make_inputs(3)),
    "causal flux": (Flux(CAUSAL), flux_reference.make_inputs(3)),
    "animatediff": (
        AnimateDiff(animatediff_reference.CONFIG), animatediff_reference.make_inputs(3)
    ),
    "modelscope": (ModelScope(modelscope_reference.CONFIG), modelscope_reference.make_inputs(3)),
    **{
        f"open_sora {form}": (OpenSora(config), open_sora_reference.make_inputs(3))
        for form, config in open_sora_reference.CONFIGS.items()
    },
    "wan": (Wan(wan_reference.CONFIG), wan_reference.make_inputs(3)),
}


def outputs(network, params, x, t, cond):
    def loss(params):
        out = network.apply(params, x, t, at(jnp.arange(3.0), x), (1, 1, 1), cond)
        return jnp.sum(np.cos(np.arange(x.size)).reshape(x.shape) * out), out

    return jax.jit(jax.grad(loss, has_aux=True))(params)


network, inputs = CASES[NAME]
params = jax.tree.map(
    lambda leaf: (STD.get(NAME, 0.2) * rng.standard_normal(leaf.shape)).astype(np.float32),
    jax.eval_shape(network.init, jax.random.key(0)),
)
expected = outputs(network, params, *inputs)
scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
cases = [(network, sizes) for sizes in MESHES]
if NAME in SCANNED:  # whose layers are made whole where they are computed again
    config = dataclasses.replace(network.config, remat="full")
    cases.append((dataclasses.replace(network, config=config), dict(data=1, fsdp=2)))
for network, sizes in cases:
    mesh = make_mesh(MeshSpec(**sizes), jax.devices()[: math.prod(sizes.values())])
    shardings = state_shardings(mesh, network.param_axes, params, params)
    placed = jax.device_put(params, shardings)
    result = outputs(dataclasses.replace(network, layout=MeshLayout(mesh)), placed, *inputs)
    for one, several in zip(jax.tree.leaves(expected), jax.tree.leaves(result), strict=True):
        np.testing.assert_allclose(np.asarray(several), one, atol=1e-5 * scale, err_msg=sizes)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("video_dit levels", "flux", "causal flux", "animatediff", "modelscope"),
        *("open_sora stdit", "open_sora stdit3", "wan"),
    ],
)
def test_every_mesh_gives_the_outputs_and_gradients_of_one_device(name: str) -> None:
    assert last_line_on(4, f"NAME = {name!r}\n{RUN}") == "equal"
