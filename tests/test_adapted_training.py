"""Training a part of a network or low-rank changes to it: what moves, what is kept, resuming."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.test_train import Crash, assert_same_state, crash_after, run_to_end
from tests.test_train_step import batch, init, make_task  # noqa: F401
from tests.tiny import tiny_config
from tpdiff_jax import train
from tpdiff_jax.build import build_experiment
from tpdiff_jax.infra.adaptation import Adaptation
from tpdiff_jax.train_step import averaged_params, init_state, train_step

PARTS = {"adaptation__trained": "blocks/.*"}
LOW_RANK = {"adaptation__rank": 2, "adaptation__alpha": 4.0}


def test_what_is_frozen_keeps_its_bits_and_has_no_moments_and_no_average(
    batch: dict[str, Any],  # noqa: F811
) -> None:
    task = make_task(optimizer=optax.adam(0.1), adaptation=Adaptation(trained="b"))
    state = init_state(task, init, jax.random.key(0))
    assert set(state.params) == set(state.ema_params) == {"b"} and set(state.frozen) == {"a"}
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.float32]
    assert len(moments) == 2, "two moments of one parameter"
    new, _ = jax.jit(train_step, static_argnums=(0, 1))(task, 0, state, batch, jax.random.key(1))
    assert_same_state(new.frozen, state.frozen)
    assert float(new.params["b"]) != 0.0
    assert set(averaged_params(task, new)) == {"a", "b"}


def matrix_network(params: Any, x_t: Any, *rest: Any) -> Any:
    """Answer W x_t over the columns, W with a leading axis of layers of which there is one."""
    return jnp.einsum("bfhwc,wv->bfhvc", x_t, params["layer"]["kernel"][0])


def test_low_rank_changes_learn_and_the_matrix_stays(batch: dict[str, Any]) -> None:  # noqa: F811
    kernel = 1.0 + jnp.arange(4.0).reshape(1, 2, 2)
    task = make_task(
        apply=matrix_network, optimizer=optax.adam(0.1), adaptation=Adaptation(rank=1, alpha=2.0)
    )
    state = init_state(task, lambda key: {"layer": {"kernel": kernel}}, jax.random.key(0))
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
