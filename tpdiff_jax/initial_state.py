"""The train state on the mesh: its shapes, placement and first values; the keys of a run."""

import functools
from collections.abc import Callable

import jax

from tpdiff_jax.build import Experiment
from tpdiff_jax.infra.param_sharding import state_shardings
from tpdiff_jax.train_step import TrainState, init_state
from tpdiff_jax.types import PRNGKey


def run_keys(seed: int) -> tuple[PRNGKey, PRNGKey]:
    """Return the keys of a run: of its parameters, and of its steps."""
    key_init, key_steps = jax.random.split(jax.random.key(seed))
    return key_init, key_steps


def make_state(experiment: Experiment, key: PRNGKey) -> TrainState:
    """Return the state before the first step, made where it will live."""
    shardings = jax.tree.map(lambda a: a.sharding, abstract_train_state(experiment))
    return jax.jit(_init(experiment), out_shardings=shardings)(key)


def abstract_train_state(experiment: Experiment) -> TrainState:
    """Return shapes, types and shardings of the state without making it."""
    shapes = jax.eval_shape(_init(experiment), jax.random.key(0))
    shardings = state_shardings(
        experiment.mesh, experiment.network.param_axes, shapes.params, shapes
    )
    return jax.tree.map(
        lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def _init(experiment: Experiment) -> Callable[[PRNGKey], TrainState]:
    return functools.partial(init_state, experiment.task, experiment.network.init)
