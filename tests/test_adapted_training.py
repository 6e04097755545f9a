"""Training a part of a network or low-rank changes to it: what moves, what is kept, resuming."""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.forced_devices import last_line_on
from tests.test_train import Crash, assert_same_state, crash_after, run_to_end
from tests.test_train_step import batch, init, make_task  # noqa: F401
from tests.tiny import tiny_config
from tpdiff_jax import train
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.models.layers.basic import Linear
from tpdiff_jax.models.layers.block_stack import apply_stack
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.train_state import averaged_params, state_of_params
from tpdiff_jax.train_step import train_step

PARTS = {"adaptation__trained": "blocks/.*"}
LOW_RANK = {"adaptation__rank": 2, "adaptation__alpha": 4.0}


def test_what_is_frozen_keeps_its_bits_and_has_no_moments_and_no_average(
    batch: dict[str, Any],  # noqa: F811
) -> None:
    task = make_task(optimizer=optax.adam(0.1), adaptation=Adaptation(trained="b"))
    state = state_of_params(task, init(jax.random.key(0)), jax.random.key(0))
    assert set(state.params) == set(state.ema_params) == {"b"} and set(state.frozen) == {"a"}
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.float32]
    assert len(moments) == 2, "two moments of one parameter"
    new, _ = jax.jit(train_step, static_argnums=(0, 1))(task, 0, state, batch, jax.random.key(1))
    assert_same_state(new.frozen, state.frozen)
    assert float(new.params["b"]) != 0.0
    assert set(averaged_params(task, new)) == {"a", "b"}


class Unrolled(NamedTuple):
    """How `matrix_network` runs its blocks."""

    scan_layers: bool = False
    remat: str = "none"


class MatrixBlock(nnx.Module):
    """One matrix over the columns."""

    def __init__(self, config: Unrolled, rngs: nnx.Rngs):
        del config
        self.layer = Linear(2, 2, use_bias=False, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.layer(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def matrix_network(params: Any, x_t: Any, *rest: Any) -> Any:
    """Answer W x_t over the columns, W with a leading axis of layers of which there is one."""
    return apply_stack(MatrixBlock, Unrolled(), params, x_t)


def test_low_rank_changes_learn_and_the_matrix_stays(batch: dict[str, Any]) -> None:  # noqa: F811
    kernel = 1.0 + jnp.arange(4.0).reshape(1, 2, 2)
    task = make_task(
        apply=matrix_network, optimizer=optax.adam(0.1), adaptation=Adaptation(rank=1, alpha=2.0)
    )
    state = state_of_params(task, {"layer": {"kernel": kernel}}, jax.random.key(0))
    start = averaged_params(task, state)
    np.testing.assert_array_equal(start["layer"]["kernel"], kernel)
    step = jax.jit(train_step, static_argnums=(0, 1))
    losses = []
    for _ in range(20):
        state, metrics = step(task, 0, state, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    assert min(losses[-5:]) < 0.5 * losses[0]
    assert_same_state(state.frozen, {"layer": {"kernel": kernel}})
    change = task.adaptation.merge(state.params, state.frozen)["layer"]["kernel"] - kernel
    assert np.linalg.matrix_rank(np.asarray(change[0]), tol=1e-4) == 1


@pytest.mark.slow
@pytest.mark.parametrize("fields", [PARTS, LOW_RANK], ids=["parts", "low rank"])
def test_resumed_runs_equal_undisturbed_ones_bit_for_bit(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    config = tiny_config(**fields)
    undisturbed = run_to_end(config, tmp_path / "undisturbed").state
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(train, "iterate_batches", crash_after(4))
        train.train(build_experiment(config), tmp_path / "resumed")
    assert_same_state(run_to_end(config, tmp_path / "resumed").state, undisturbed)
    assert undisturbed.frozen


MESHES = """
import math
import jax, numpy as np
from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.training.initial_state import abstract_train_state, make_state
from tpdiff_jax.training.step_programs import compile_steps
from tpdiff_jax.train import iterate_batches


def losses(sizes):
    fields = {f"mesh__{axis}": size for axis, size in sizes.items()}
    config = tiny_config(
        adaptation__rank=2, adaptation__alpha=4.0, optim__schedule="constant",
        optim__warmup_steps=0, optim__learning_rate=1e-2, pyramid__frame_strides=(1,), **fields
    )
    experiment = build_experiment(config, jax.devices()[: math.prod(sizes.values())])
    state, key = make_state(experiment, jax.random.key(0)), jax.random.key(1)
    (step,) = compile_steps(experiment, abstract_train_state(experiment), key)
    batches, out = iterate_batches(experiment, 0), []
    for _ in range(8):
        state, metrics = step(state, next(batches), key)
        out.append(float(metrics["loss"]))
    for leaf in jax.tree.leaves(state.params):
        assert leaf.addressable_shards[0].data.shape == leaf.shape
    return out


one = losses({"data": 1})
assert one[-1] != one[0]
for sizes in (dict(data=2, fsdp=2), dict(data=1, fsdp=2, tensor=2)):
    np.testing.assert_allclose(losses(sizes), one, rtol=1e-5, err_msg=str(sizes))
print("equal")
"""


@pytest.mark.slow
def test_low_rank_changes_lie_whole_on_every_mesh_and_give_the_losses_of_one_device() -> None:
    assert last_line_on(4, MESHES) == "equal"
