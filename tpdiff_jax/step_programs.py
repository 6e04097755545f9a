"""The training step of each stage as a compiled program, for training and for planning alike."""

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from tpdiff_jax.build import Experiment
from tpdiff_jax.infra import mesh as mesh_lib
from tpdiff_jax.infra.host_memory import release_free_memory
from tpdiff_jax.train_step import TrainState, train_step
from tpdiff_jax.types import Array, PRNGKey

StepFunction = Callable[[TrainState, Any, PRNGKey], tuple[TrainState, dict[str, Array]]]


def compile_steps(
    experiment: Experiment, abstract_state: TrainState, key: PRNGKey
) -> list[StepFunction]:
    """Compile one training step per stage, ahead of time and in parallel."""

    def compile_stage(stage_index: int) -> StepFunction:
        return trace_step(experiment, stage_index, abstract_state, key).lower().compile()

    start = time.perf_counter()
    num_stages = experiment.pyramid.num_stages
    with concurrent.futures.ThreadPoolExecutor(num_stages) as pool:
        functions = list(pool.map(compile_stage, range(num_stages)))
    release_free_memory()
    logging.info("compiled %d stages in %.1f s", num_stages, time.perf_counter() - start)
    return functions


def trace_step(
    experiment: Experiment, stage_index: int, abstract_state: TrainState, key: Any
) -> jax.stages.Traced:
    """Trace the training step of one stage, to be lowered and compiled for the experiment's mesh.

    Args:
        experiment: what is trained; its devices need not be of this machine.
        stage_index: stage, 0 is the coarsest.
        abstract_state: shapes and shardings of the state.
        key: the run's key, or its shape.
    """
    mesh = experiment.mesh
    replicated, batched = mesh_lib.sharding(mesh), mesh_lib.sharding(mesh, "batch")
    state_shardings = jax.tree.map(lambda a: a.sharding, abstract_state)

    def step_function(state: TrainState, batch: Any, key: PRNGKey) -> Any:
        return train_step(experiment.task, stage_index, state, batch, key)

    step_function.__name__ = f"train_stage_{stage_index}"  # shown by profilers and logs
    step = jax.jit(
        step_function,
        in_shardings=(state_shardings, batched, replicated),
        out_shardings=(state_shardings, replicated),
        donate_argnums=0,
    )
    return step.trace(abstract_state, abstract_batch(experiment, stage_index), key)


def abstract_batch(experiment: Experiment, stage_index: int) -> dict[str, Any]:
    """Return shapes, types and shardings of a training batch of one stage."""
    batched = mesh_lib.sharding(experiment.mesh, "batch")
    dataset, batch_size = experiment.dataset, experiment.batch_sizes[stage_index]
    video_shape = (batch_size, dataset.num_frames, *dataset.frame_shape)
    return {
        "video": jax.ShapeDtypeStruct(video_shape, jnp.float32, sharding=batched),
        "cond": abstract_cond(experiment, batch_size),
    }


def abstract_cond(experiment: Experiment, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes, types and shardings of the conditions of `batch_size` videos."""
    batched = mesh_lib.sharding(experiment.mesh, "batch")
    return {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=batched)
        for name, (shape, dtype) in experiment.dataset.cond_shapes.items()
    }
