"""The train state on the mesh: its shapes and placement, and its values before the first step."""

import functools
from collections.abc import Callable

import jax

from tpdiff_jax.build import Experiment
from tpdiff_jax.infra import mesh as mesh_lib
from tpdiff_jax.train_step import TrainState, init_state
from tpdiff_jax.types import PRNGKey


def make_state(experiment: Experiment, key: PRNGKey) -> TrainState:
    """Return the state before the first step, made where it will live."""
    return jax.jit(_init(experiment), out_shardings=mesh_lib.sharding(experiment.mesh))(key)


def abstract_train_state(experiment: Experiment) -> TrainState:
    """Return shapes, types and shardings of the state without making it."""
    replicated = mesh_lib.sharding(experiment.mesh)
    shapes = jax.eval_shape(_init(experiment), jax.random.key(0))
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=replicated), shapes
    )


def _init(experiment: Experiment) -> Callable[[PRNGKey], TrainState]:
    return functools.partial(init_state, experiment.task, experiment.network.init)
