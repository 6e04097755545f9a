"""The train state on the mesh: its shapes, placement and first values; the keys of a run."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from tpdiff_jax.checks import naming
from tpdiff_jax.devices.param_sharding import shardings_of, state_shardings
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.models.adapter_names import adapter_names
from tpdiff_jax.models.adapter_start import fill_low_rank
from tpdiff_jax.models.adapters import (
    AdaptedNetwork,
    named_pairs,
    placed_like,
)
from tpdiff_jax.optim.adaptation import union
from tpdiff_jax.run_folder.checkpoints import Restored
from tpdiff_jax.train_state import TrainState, state_of_params
from tpdiff_jax.types import Params, PRNGKey
from tpdiff_jax.weights.adapter_files import quoted_names, read_adapter


def run_keys(seed: int) -> tuple[PRNGKey, PRNGKey]:
    """Return the keys of a run: of its parameters, and of its steps."""
    key_init, key_steps = jax.random.split(jax.random.key(seed))
    return key_init, key_steps


def make_state(experiment: Experiment, key: PRNGKey) -> TrainState:
    """Return the state before the first step, made where it will live.

    Raises:
        ValueError: when the published weights to start from do not fit.
    """
    init, shapes = experiment.network.init, abstract_params(experiment)
    of_params = functools.partial(state_of_params, experiment.task)
    shardings = shardings_of(_abstract_state(experiment, shapes))
    if experiment.weights is None and experiment.task.adaptation.rank:
        # Low-rank changes take their keys in the order in which a network is built. Arguments of a
        # program come in that of their names: two programs would give a seed other changes.
        state = jax.jit(lambda key: of_params(init(key), key), out_shardings=shardings)(key)
    else:
        if experiment.weights is None:
            # A program of its own: runs that differ in the rest read it from the cache.
            params = jax.jit(init, out_shardings=shardings_of(shapes))(key)
        else:
            params = experiment.weights.load(experiment.network.config, shapes, key)
        state = jax.jit(of_params, out_shardings=shardings, donate_argnums=0)(params, key)
    return state if experiment.adapter is None else _from_adapter(experiment, state)


def _from_adapter(experiment: Experiment, state: TrainState) -> TrainState:
    """Return the state with an adapter in the place of fresh low-rank changes.

    Raises:
        ValueError: when the adapter does not fit the network, or what of it is trained.
    """
    names, path = adapter_names(experiment.config.model.name), experiment.adapter
    network = AdaptedNetwork(names, experiment.network.config, state.frozen)
    with naming("adaptation.weights"):
        file = read_adapter(pathlib.Path(str(path)))
        pairs = named_pairs(file, network)
        scale = experiment.task.adaptation.scale
        low, fresh = fill_low_rank(state.params, pairs, network, file.layout, scale)
    logging.info("low-rank changes start from %s", file)
    if fresh:
        logging.warning("it lacks %s: they start from nothing", quoted_names(fresh))
    placed = jax.tree.map(placed_like, state.params, low)
    return state._replace(params=placed, ema_params=jax.tree.map(jnp.copy, placed))


def abstract_train_state(experiment: Experiment) -> TrainState:
    """Return shapes, types and shardings of the state without making it."""
    return _abstract_state(experiment, abstract_params(experiment))


def log_start(restored: Restored | None, state: TrainState) -> None:
    """Say what the run trains and where it starts.

    Args:
        restored: the checkpoint that it goes on from; None at its start.
        state: what it starts with.
    """
    from clu import parameter_overview  # of training alone

    overview = parameter_overview.get_parameter_overview(dict(state.params), include_stats=False)
    logging.info("parameters:\n%s", overview)
    if state.frozen:
        num_frozen = sum(leaf.size for leaf in jax.tree.leaves(state.frozen))
        logging.info("and %d parameters that stay as they are", num_frozen)
    if restored is None:
        logging.info("no checkpoint in the workdir: starting at step 0")
    else:
        reason = "; ".join(restored.rejected)
        because = f", because newer ones are damaged ({reason})" if reason else ""
        logging.info("resumed from the checkpoint of step %d%s", restored.step, because)


def abstract_params(experiment: Experiment) -> Params:
    """Return shapes, types and shardings of the network's parameters, trained and frozen."""
    shapes = jax.eval_shape(experiment.network.init, jax.random.key(0))
    return _with_shardings(experiment, shapes, shapes)


def _abstract_state(experiment: Experiment, params: Params) -> TrainState:
    of_params = functools.partial(state_of_params, experiment.task)
    shapes = jax.eval_shape(of_params, params, jax.random.key(0))
    return _with_shardings(experiment, union(shapes.params, shapes.frozen), shapes)


def _with_shardings(experiment: Experiment, params: Params, tree: Any) -> Any:
    axes = experiment.task.adaptation.param_axes(experiment.network.param_axes)
    is_muon = experiment.config.optim.name == "muon"
    return jax.tree.map(
        lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
        tree,
        state_shardings(experiment.mesh, axes, params, tree, is_muon=is_muon),
    )
