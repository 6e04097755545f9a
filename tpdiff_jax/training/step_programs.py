"""Training steps as compiled programs, one a stage and shape of clips; training, planning."""

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from tpdiff_jax.checks import naming
from tpdiff_jax.devices import mesh as mesh_lib
from tpdiff_jax.devices.host_memory import release_free_memory
from tpdiff_jax.experiment.experiment import Experiment, Program
from tpdiff_jax.run_folder.cores import usable_cores
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.train_state import TrainState
from tpdiff_jax.train_step import train_step
from tpdiff_jax.types import Array, PRNGKey

StepFunction = Callable[[TrainState, Any, PRNGKey], tuple[TrainState, dict[str, Array]]]


def compile_steps(
    experiment: Experiment, abstract_state: TrainState, key: PRNGKey
) -> list[StepFunction]:
    """Compile `experiment.programs` ahead of time, as many at a time as there are stages.

    Where CPUs compute, one for every two cores: the compiler uses several threads itself, and takes
    a gigabyte a program, most of which the C library keeps until it is told to give it back.

    Args:
        experiment: shapes and stages.
        abstract_state: shapes and shardings of the state.
        key: the run's key, or its shape.

    Returns:
        One function for each program, (state, batch, key) -> (state, metrics).
    """

    def compile_program(program: Program) -> StepFunction:
        with naming(program.name):
            traced = trace_step(program, abstract_state, key)
        compiled = traced.lower().compile()
        release_free_memory()
        return compiled

    start, programs = time.perf_counter(), experiment.programs
    num_buckets, num_stages = len(experiment.shapes), experiment.pyramid.num_stages
    is_quiet = jax.process_index() != 0
    cores = usable_cores()
    at_a_time = num_stages if cores is None else max(1, min(num_stages, cores // 2))
    with (
        Progress(len(programs), label="compile", unit="program", is_quiet=is_quiet) as progress,
        concurrent.futures.ThreadPoolExecutor(at_a_time) as pool,
    ):
        compiled = [pool.submit(compile_program, program) for program in programs]
        for done, _ in enumerate(concurrent.futures.as_completed(compiled), start=1):
            progress.update(done)
        functions = [program.result() for program in compiled]
    what = f"{num_stages} stages" if num_buckets == 1 else f"{num_buckets} x {num_stages} programs"
    logging.info("compiled %s in %.1f s", what, time.perf_counter() - start)
    return functions


def trace_step(program: Program, abstract_state: TrainState, key: Any) -> jax.stages.Traced:
    """Trace a training step, to be lowered and compiled for the experiment's mesh.

    Args:
        program: shape of the clips and stage; the devices need not be of this machine.
        abstract_state: shapes and shardings of the state.
        key: the run's key, or its shape.
    """
    mesh, task = program.experiment.mesh, program.task
    replicated, batched = mesh_lib.sharding(mesh), mesh_lib.sharding(mesh, "batch")
    state_shardings = jax.tree.map(lambda a: a.sharding, abstract_state)

    def step_function(state: TrainState, batch: Any, key: PRNGKey) -> Any:
        return train_step(task, program.stage, state, batch, key)

    name = program.name.replace(" ", "_")
    step_function.__name__ = f"train_{name}"  # shown by profilers and logs
    step = jax.jit(
        step_function,
        in_shardings=(state_shardings, batched, replicated),
        out_shardings=(state_shardings, replicated),
        donate_argnums=0,
    )
    return step.trace(abstract_state, abstract_batch(program), key)


def abstract_batch(program: Program) -> dict[str, Any]:
    """Return shapes, types and shardings of the training batch of a program."""
    experiment, batch_size = program.experiment, program.batch_size
    batched = mesh_lib.sharding(experiment.mesh, "batch")
    video_shape = (batch_size, *program.clips.video_shape)
    return {
        "video": jax.ShapeDtypeStruct(video_shape, jnp.float32, sharding=batched),
        "cond": abstract_cond(experiment, batch_size),
    }


def abstract_cond(experiment: Experiment, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes, types and shardings of the conditions of `batch_size` videos."""
    batched = mesh_lib.sharding(experiment.mesh, "batch")
    return {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=batched)
        for name, (shape, dtype) in experiment.clip_facts.cond_shapes.items()
    }
