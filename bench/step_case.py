"""Training steps to be timed, one after another on one state."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.experiment.experiment import Experiment, Program
from tpdiff_jax.training.initial_state import make_state, run_keys
from tpdiff_jax.training.step_programs import abstract_batch
from tpdiff_jax.types import Array


def random_batch(program: Program, seed: int = 0) -> dict[str, Any]:
    """Return a training batch of normal numbers, and zeros where whole numbers belong.

    It needs no clips, and a chip that multiplies zeros draws less power, and runs faster, than one
    that works.

    Args:
        program: whose batch.
        seed: of the numbers.
    """
    rng = np.random.default_rng(seed)

    def draw(a: jax.ShapeDtypeStruct) -> Array:
        is_real = jnp.issubdtype(a.dtype, jnp.floating)
        values = rng.standard_normal(a.shape, np.float32) if is_real else np.zeros(a.shape)
        return jax.device_put(values.astype(a.dtype), a.sharding)

    return jax.tree.map(draw, abstract_batch(program))


def step_case(
    experiment: Experiment, stage_index: int, step: Callable[..., Any]
) -> Callable[[], dict[str, Array]]:
    """Return a call that takes one step of a stage after another, on a batch of zeros.

    Args:
        experiment: what is trained.
        stage_index: stage, 0 is the coarsest.
        step: as `train_step`, which it may be.

    Returns:
        The call, which returns the step's metrics.
    """
    key_init, key = run_keys(experiment.train.seed)
    batch = jax.tree.map(
        lambda a: jax.device_put(jnp.zeros(a.shape, a.dtype), a.sharding),
        abstract_batch(experiment.programs[stage_index]),
    )
    function = jax.jit(functools.partial(step, experiment.task, stage_index), donate_argnums=0)
    held = [make_state(experiment, key_init)]

    def call() -> dict[str, Array]:
        held[0], metrics = function(held[0], batch, key)
        return metrics

    return call
