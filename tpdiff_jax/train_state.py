"""What training changes (`TrainState`), and what a step needs and never changes (`TrainTask`)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from tpdiff_jax import method
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.optim.guard import GuardSpec, GuardState, init_guard
from tpdiff_jax.types import Array, Cond, Params, PRNGKey


class TrainState(NamedTuple):
    """Everything that training changes.

    Attributes:
        step: steps taken, skipped ones included, int32.
        num_updates: updates applied, int32; `step - num_updates` steps were skipped.
        params: what is trained: the network's parameters, a part of them or low-rank changes.
        frozen: the rest of the network's parameters; the optimizer and the average lack them.
        ema_params: exponential moving average of `params`, used for sampling.
        opt_state: optax state.
        guard: what the guard against bad steps remembers.
    """

    step: Array
    num_updates: Array
    params: Params
    frozen: Params
    ema_params: Params
    opt_state: Any
    guard: GuardState


class TrainTask(NamedTuple):
    """What a step needs and never changes.

    Attributes:
        pyramid: stages, path and targets.
        alignment: data-noise alignment.
        apply: the network, `apply(params, x_t, t, positions, strides, cond)`.
        null_cond: maps a condition to its unconditional twin.
        optimizer: optax transformation.
        schedule: learning rate as a function of applied updates (logged only).
        ema_decay: largest decay of the moving average, in [0, 1).
        cond_dropout: probability of training a sample without its condition.
        guard: which steps are skipped.
        batch_sharding: how batches lie on several devices; None on one. Noise is then drawn where
            it is used and only keys and scores travel.
        grad_accum_steps: parts of a batch whose gradients are taken one after another, to save
            memory; each holds whole alignment groups.
        adaptation: what of the network is trained.
    """

    pyramid: method.Pyramid
    alignment: method.AlignmentSpec
    apply: Callable[..., Array]
    null_cond: Callable[[Cond], Cond]
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    ema_decay: float
    cond_dropout: float
    guard: GuardSpec = GuardSpec()
    batch_sharding: NamedSharding | None = None
    grad_accum_steps: int = 1
    adaptation: Adaptation = Adaptation()


def state_of_params(task: TrainTask, network_params: Params, key: PRNGKey) -> TrainState:
    """Return the state before the first step, with given parameters.

    Args:
        task: what a step needs.
        network_params: of the whole network, fresh or published.
        key: of low-rank changes, where there are any.

    Returns:
        Counters at 0, the average equal to what is trained.
    """
    params, frozen = task.adaptation.split(network_params, jax.random.fold_in(key, 1))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        num_updates=jnp.zeros((), jnp.int32),
        params=params,
        frozen=frozen,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=task.optimizer.init(params),
        guard=init_guard(task.guard, task.pyramid.num_stages),
    )


def averaged_params(task: TrainTask, state: TrainState) -> Params:
    """Return the network's parameters for sampling.

    Args:
        task: its adaptation says how trained and frozen parts make a network.
        state: of any step.

    Returns:
        Parameters as `Network.init` returns them: low-rank changes are added to their matrices.
    """
    return task.adaptation.merge(state.ema_params, state.frozen)
