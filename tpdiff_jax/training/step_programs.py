"""Training steps as compiled programs; training, planning.

    gradient    one a stage and shape of clips: data, network, loss
    update      one for all of them: guard, optimizer, moving average

So what compiles for long is compiled once whatever is changed in the optimizer, and the update once
whatever the number of stages. A clipped update needs the whole gradient before it begins, so that
nothing more has to be kept than in one program.
"""

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from tpdiff_jax.checks import naming
from tpdiff_jax.devices import mesh as mesh_lib
from tpdiff_jax.devices.host_memory import release_free_memory
from tpdiff_jax.devices.param_sharding import shardings_of
from tpdiff_jax.experiment.experiment import Experiment, Program
from tpdiff_jax.run_folder.cores import usable_cores
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.train_state import TrainState
from tpdiff_jax.train_step import gradient_step, update_step
from tpdiff_jax.types import Array, Params, PRNGKey

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

    Raises:
        JaxRuntimeError: as the compiler's, when a program does not compile, as where it needs more
            memory than there is; others are then not begun.
    """

    def compile_gradient(program: Program) -> jax.stages.Compiled:
        with naming(program.name):
            traced = trace_gradient(program, abstract_state, key)
        return _compile(traced)

    start, programs = time.perf_counter(), experiment.programs
    num_buckets, num_stages = len(experiment.shapes), experiment.pyramid.num_stages
    is_quiet = jax.process_index() != 0
    cores = usable_cores()
    at_a_time = num_stages if cores is None else max(1, min(num_stages, cores // 2))
    with (
        Progress(len(programs) + 1, label="compile", unit="program", is_quiet=is_quiet) as progress,
        concurrent.futures.ThreadPoolExecutor(at_a_time) as pool,
    ):
        gradients = [pool.submit(compile_gradient, program) for program in programs]
        update = pool.submit(lambda: _compile(trace_update(experiment, abstract_state)))
        compiled = concurrent.futures.as_completed([*gradients, update])
        try:
            for done, finished in enumerate(compiled, start=1):
                finished.result()
                progress.update(done)
        except BaseException:  # what has not begun would only hold up what is wrong
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        steps: list[StepFunction] = [
            CompiledStep(program, gradient.result(), update.result())
            for program, gradient in zip(programs, gradients, strict=True)
        ]
    what = f"{num_stages} stages" if num_buckets == 1 else f"{num_buckets} x {num_stages} programs"
    logging.info("compiled %s in %.1f s", what, time.perf_counter() - start)
    return steps


def compile_step(program: Program, abstract_state: TrainState, key: PRNGKey) -> "CompiledStep":
    """Compile the training step of one program.

    Args:
        program: shape of the clips and stage.
        abstract_state: shapes and shardings of the state.
        key: the run's key, or its shape.
    """
    return CompiledStep(
        program,
        _compile(trace_gradient(program, abstract_state, key)),
        _compile(trace_update(program.experiment, abstract_state)),
    )


class CompiledStep:
    """A training step: its two programs, one after the other.

    Attributes:
        gradient: (params, frozen, step, batch, key) -> (gradient, metrics), compiled.
        update: (state without `frozen`, gradient, loss, stage) -> (state, metrics), compiled.
    """

    def __init__(
        self, program: Program, gradient: jax.stages.Compiled, update: jax.stages.Compiled
    ) -> None:
        """Take what is compiled; the number of the stage is sent to the devices once."""
        self.gradient, self.update = gradient, update
        replicated = mesh_lib.sharding(program.experiment.mesh)
        self._stage = jax.device_put(np.int32(program.stage), replicated)

    def __call__(
        self, state: TrainState, batch: Any, key: PRNGKey
    ) -> tuple[TrainState, dict[str, Array]]:
        """Take a step; as `train_step`, but that the state is given away."""
        frozen = state.frozen
        grads, measured = self.gradient(state.params, frozen, state.step, batch, key)
        state, said = self.update(without_frozen(state), grads, measured["loss"], self._stage)
        return state._replace(frozen=frozen), measured | said


def without_frozen(state: TrainState) -> TrainState:
    """The part of a state that an update reads and changes.

    Args:
        state: arrays, or their shapes.
    """
    return state._replace(frozen={})


def trace_gradient(program: Program, abstract_state: TrainState, key: Any) -> jax.stages.Traced:
    """Trace a training step's gradient, to be lowered and compiled for the experiment's mesh.

    Args:
        program: shape of the clips and stage; the devices need not be of this machine.
        abstract_state: shapes and shardings of the state.
        key: the run's key, or its shape.
    """
    mesh, task = program.experiment.mesh, program.task
    replicated, batched = mesh_lib.sharding(mesh), mesh_lib.sharding(mesh, "batch")
    params, frozen = abstract_state.params, abstract_state.frozen

    def gradient(params: Params, frozen: Params, step: Array, batch: Any, key: PRNGKey) -> Any:
        return gradient_step(task, program.stage, params, frozen, step, batch, key)

    name = program.name.replace(" ", "_")
    gradient.__name__ = f"train_{name}"  # shown by profilers and logs
    jitted = jax.jit(
        gradient,
        in_shardings=(shardings_of(params), shardings_of(frozen), replicated, batched, replicated),
        out_shardings=(shardings_of(params), replicated),
    )
    return jitted.trace(params, frozen, abstract_state.step, abstract_batch(program), key)


def trace_update(experiment: Experiment, abstract_state: TrainState) -> jax.stages.Traced:
    """Trace what follows the gradient, whatever the stage and the shape of clips.

    Args:
        experiment: optimizer, guard and mesh.
        abstract_state: shapes and shardings of the state.
    """
    replicated, task = mesh_lib.sharding(experiment.mesh), experiment.task
    state, grads = without_frozen(abstract_state), abstract_state.params

    def train_update(state: TrainState, grads: Params, loss: Array, stage: Array) -> Any:
        return update_step(task, state, grads, loss, stage)

    jitted = jax.jit(
        train_update,
        in_shardings=(shardings_of(state), shardings_of(grads), replicated, replicated),
        out_shardings=(shardings_of(state), replicated),
        donate_argnums=0,
    )
    loss, stage = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    return jitted.trace(state, grads, loss, stage)


def _compile(traced: jax.stages.Traced) -> jax.stages.Compiled:
    """Compile, and give back the memory that it took."""
    compiled = traced.lower().compile()
    release_free_memory()
    return compiled


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
