"""Every axis of the mesh, alone and combined, gives the single device's losses and checkpoints."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from tests.forced_devices import last_line_on
from tpdiff_jax.devices.param_axes import axes_of_path
from tpdiff_jax.devices.param_sharding import path_ends
from tpdiff_jax.models import VideoDiT, VideoDiTConfig

ONE: dict[str, int] = {"data": 1}
MESHES = {
    "data": {"data": 8},
    "fsdp": {"data": 1, "fsdp": 8},
    "tensor": {"data": 1, "tensor": 2},
    "context": {"data": 1, "context": 8},
    "data and fsdp": {"data": 2, "fsdp": 4},
    "data, fsdp and tensor": {"data": 2, "fsdp": 2, "tensor": 2},
    "fsdp, context and tensor": {"data": 1, "fsdp": 2, "context": 2, "tensor": 2},
}

RUN = """
import json, math, pathlib, sys
import jax
from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.run_folder.checkpoints import Checkpoints
from tpdiff_jax.training.initial_state import abstract_train_state, make_state
from tpdiff_jax.data.step_schedule import stage_of_step
from tpdiff_jax.training.step_programs import compile_steps
from tpdiff_jax.training.batches import iterate_batches

meshes, num_steps, folder = json.loads(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])


def experiment_on(sizes):
    fields = {f"mesh__{axis}": size for axis, size in sizes.items()}
    config = tiny_config(
        optim__schedule="constant", optim__warmup_steps=1, pyramid__frame_strides=(2, 1), **fields
    )
    return build_experiment(config, jax.devices()[: math.prod(sizes.values())])


def losses(experiment):
    key_init, key = jax.random.split(jax.random.key(0))
    state = make_state(experiment, key_init)
    functions = compile_steps(experiment, abstract_train_state(experiment), key)
    out, batches = [], iterate_batches(experiment, 0)
    for step in range(num_steps):
        stage = stage_of_step(0, step, experiment.train.stage_probs)
        state, metrics = functions[stage](state, next(batches), key)
        out.append(float(metrics["loss"]))
    return out, state


def device_bytes(tree):
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def report(name, sizes):
    values, state = losses(experiment_on(sizes))
    parts = {part: device_bytes(getattr(state, part)) for part in ("params", "opt_state")}
    return {"losses": values, "bytes": parts | {"ema_params": device_bytes(state.ema_params)}}


def moved(chain):
    state = make_state(experiment_on(chain[0]), jax.random.key(1))
    for place, sizes in enumerate(chain[1:]):
        checkpoints = Checkpoints(folder / str(place))
        checkpoints.save(1, state, {})
        checkpoints.wait()
        new = checkpoints.restore(abstract_train_state(experiment_on(sizes))).state
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
            assert jax.device_get(a).tobytes() == jax.device_get(b).tobytes()
            assert b.sharding.num_devices == math.prod(sizes.values())
        state = new
    return len(chain) - 1


result = {name: report(name, sizes) for name, sizes in meshes.items()}
result["moves"] = moved([{"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1, "fsdp": 4}, {"data": 1}])
print(json.dumps(result))
"""


@pytest.mark.parametrize("attention", ["factorised", "joint"])
def test_every_parameter_of_the_network_has_its_axes(attention: str) -> None:
    network = VideoDiT(VideoDiTConfig(attention=attention, qk_norm=True))
    params = jax.eval_shape(network.init, jax.random.key(0))
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(params):
        (path, *_) = path_ends(key_path)
        axes = axes_of_path(network.param_axes, path)
        # Matrices are divided, vectors are not; blocks have a leading axis of layers.
        is_matrix = leaf.ndim - path.startswith("blocks/") == 2
        assert bool(axes) == is_matrix and len(axes) in (0, leaf.ndim), path


def reports(num_steps: int, folder: pathlib.Path) -> dict[str, Any]:
    """Train on every mesh in a process of 8 forced host devices."""
    meshes = json.dumps({"one": ONE, **MESHES})
    return json.loads(last_line_on(8, RUN, meshes, str(num_steps), str(folder), timeout=1800.0))


@pytest.mark.slow
def test_every_mesh_gives_the_losses_of_one_device_and_shares_the_parameters(
    tmp_path: pathlib.Path,
) -> None:
    result = reports(20, tmp_path)
    one = result["one"]
    assert len(one["losses"]) == 20
    for name, sizes in MESHES.items():
        np.testing.assert_allclose(result[name]["losses"], one["losses"], rtol=1e-5, err_msg=name)
        # Vectors stay whole, and they are a small part even of this tiny network.
        shares = sizes.get("fsdp", 1)
        for part, whole in one["bytes"].items():
            assert result[name]["bytes"][part] < 1.3 * whole / shares, (name, part)
    assert result["moves"] == 2
