"""What a training step takes on each device: its two programs, one after the other.

While one of them runs, what only the other reads waits beside it:

    gradient    the moving average, the optimizer's and the guard's state
    update      frozen parameters and the batch
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax

from tpdiff_jax.experiment.experiment import Experiment, Program
from tpdiff_jax.planning.program_cost import (
    DoesNotFit,
    ProgramCost,
    compile_or_refuse,
    memory_use,
    program_cost,
)
from tpdiff_jax.train_state import TrainState
from tpdiff_jax.training.initial_state import abstract_train_state
from tpdiff_jax.training.step_programs import abstract_batch, trace_gradient, trace_update


def update_cost(experiment: Experiment) -> ProgramCost:
    """Compile the update and return what it takes by itself; it is the same for every stage.

    Args:
        experiment: compiled for its own mesh; nothing runs.

    Raises:
        DoesNotFit: when the compiler says that it needs more memory than a device has.
    """
    traced = trace_update(experiment, abstract_train_state(experiment))
    return program_cost(traced, list(experiment.mesh.devices.flat))


def step_cost(program: Program, update: ProgramCost) -> ProgramCost:
    """Compile a program's gradient and return what a whole step takes.

    Args:
        program: compiled for its experiment's mesh; nothing runs.
        update: its experiment's `update_cost`.

    Raises:
        DoesNotFit: when the compiler says that it needs more memory than a device has.
    """
    return gradient_cost(program).then(update_beside(program, update))


def gradient_cost(program: Program) -> ProgramCost:
    """Compile a program's gradient and return what it takes, with what waits beside it.

    Args:
        program: compiled for its experiment's mesh; nothing runs.

    Raises:
        DoesNotFit: when the compiler says that it needs more memory than a device has.
    """
    state = abstract_train_state(program.experiment)
    with _counting(held := beside_gradient(state)):
        cost = program_cost(_trace(program, state), list(program.experiment.mesh.devices.flat))
    return _beside(cost, held)


def update_beside(program: Program, update: ProgramCost) -> ProgramCost:
    """Return what an update takes, with what waits beside it.

    Args:
        program: after whose gradient.
        update: its experiment's `update_cost`.
    """
    frozen = abstract_train_state(program.experiment).frozen
    return _beside(update, bytes_on_each_device((frozen, abstract_batch(program))))


def gradient_peak(program: Program) -> float:
    """Return the bytes that each device holds while a gradient is computed.

    Args:
        program: compiled for its experiment's mesh; nothing runs.

    Raises:
        DoesNotFit: when the compiler says that it needs more memory than a device has.
    """
    state = abstract_train_state(program.experiment)
    with _counting(held := beside_gradient(state)):
        compiled = compile_or_refuse(_trace(program, state))
    platform = program.experiment.mesh.devices.flat[0].platform
    return memory_use(compiled.memory_analysis(), platform).peak + held


def bytes_on_each_device(tree: Any) -> float:
    """Return the bytes of a tree on each device.

    Args:
        tree: arrays, or their shapes, types and shardings.
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _trace(program: Program, state: TrainState) -> jax.stages.Traced:
    return trace_gradient(program, state, jax.eval_shape(lambda: jax.random.key(0)))


def beside_gradient(state: TrainState) -> float:
    """Return the bytes on each device that wait while a gradient is computed.

    Args:
        state: arrays, or their shapes, types and shardings.
    """
    return bytes_on_each_device((state.ema_params, state.opt_state, state.guard))


@contextlib.contextmanager
def _counting(held: float) -> Iterator[None]:
    """Add what waits beside a program to the bytes that the compiler says it needs."""
    try:
        yield
    except DoesNotFit as error:
        if error.needed is not None:
            error.needed += held
        raise


def _beside(cost: ProgramCost, held: float) -> ProgramCost:
    return dataclasses.replace(cost, memory=cost.memory.beside(held))
