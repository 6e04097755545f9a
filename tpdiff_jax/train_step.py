"""One training step of one pyramid stage: loss -> gradients -> update -> EMA. Pure.

    eps      aligned with the clip's frames, before noising          (Algorithm 1)
    x_t      on the straight line between xs_i and xe_i               (Eq. 7, 8, 10, 12)
    loss     mean squared error against the line's own target         (Eq. 11, 13)

A step that the guard rejects (infra/guard.py) is selected away as if it had never been applied:
parameters, optimizer (schedule included) and EMA stay; data and random key move on with `step`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from tpdiff_jax import method
from tpdiff_jax.infra.guard import GuardSpec, GuardState, init_guard, judge_step
from tpdiff_jax.types import Array, Cond, Params, PRNGKey


class TrainState(NamedTuple):
    """Everything that training changes.

    Attributes:
        step: steps taken, skipped ones included, int32.
        num_updates: updates applied, int32; `step - num_updates` steps were skipped.
        params: network parameters.
        ema_params: exponential moving average of `params`, used for sampling.
        opt_state: optax state.
        guard: what the guard against bad steps remembers.
    """

    step: Array
    num_updates: Array
    params: Params
    ema_params: Params
    opt_state: Any
    guard: GuardState


class TrainTask(NamedTuple):
    """What a step needs and never changes.

    Attributes:
        pyramid: stages, path and targets.
        alignment: data-noise alignment.
        apply: the network, `apply(params, x_t, t, frame_positions, frame_stride, cond)`.
        null_cond: maps a condition to its unconditional twin.
        optimizer: optax transformation.
        schedule: learning rate as a function of applied updates (logged only).
        ema_decay: largest decay of the moving average, in [0, 1).
        cond_dropout: probability of training a sample without its condition.
        guard: which steps are skipped.
        batch_sharding: how batches lie on several devices; None on one. Noise is then drawn where
            it is used and only keys and scores travel.
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


def init_state(task: TrainTask, init: Callable[[PRNGKey], Params], key: PRNGKey) -> TrainState:
    """Return the state before the first step."""
    params = init(key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        num_updates=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=task.optimizer.init(params),
        guard=init_guard(task.guard, task.pyramid.num_stages),
    )


def train_step(
    task: TrainTask, stage_index: int, state: TrainState, batch: dict[str, Any], key: PRNGKey
) -> tuple[TrainState, dict[str, Array]]:
    """Train stage `stage_index` on one batch.

    Args:
        task: what the step needs; static.
        stage_index: stage, 0 is the coarsest; static.
        state: state before the step.
        batch: `video` [b, f, h, w, c] at full rate, `cond` a pytree with leading axis b.
        key: the run's key; the step's own randomness is `fold_in(key, state.step)`.

    Returns:
        The state after the step and a dict of float32 scalars.
    """
    step_key = jax.random.fold_in(key, state.step)

    def loss_fn(params: Params) -> tuple[Array, dict[str, Array]]:
        return stage_loss(task, stage_index, params, batch, step_key)

    (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    grad_norm = optax.tree.norm(grads)
    updated = apply_gradients(task, state, grads)
    verdict, guard = judge_step(task.guard, state.guard, stage_index, loss, grad_norm)
    # Selected, not scaled by 0 or 1: 0 * NaN is NaN.
    kept = jax.tree.map(lambda new, old: jnp.where(verdict.is_good, new, old), updated, state)
    metrics |= {
        "loss": loss,
        "grad_norm": grad_norm,
        "learning_rate": jnp.asarray(task.schedule(state.num_updates), jnp.float32),
        "is_skipped": 1.0 - verdict.is_good.astype(jnp.float32),
        "is_spike": verdict.is_spike.astype(jnp.float32),
        "bad_in_a_row": verdict.bad_in_a_row.astype(jnp.float32),
    }
    return kept._replace(step=state.step + 1, guard=guard), metrics


def apply_gradients(task: TrainTask, state: TrainState, grads: Params) -> TrainState:
    """Update parameters, optimizer and moving average, whose decay warms up."""
    updates, opt_state = task.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = jnp.minimum(task.ema_decay, (1.0 + state.num_updates) / (10.0 + state.num_updates))
    return state._replace(
        num_updates=state.num_updates + 1,
        params=params,
        ema_params=optax.incremental_update(params, state.ema_params, 1.0 - decay),
        opt_state=opt_state,
    )


class StepKeys(NamedTuple):
    """What a step draws: noise time, noise, conditions left out."""

    time: PRNGKey
    noise: PRNGKey
    dropout: PRNGKey


def split_step_key(key: PRNGKey) -> StepKeys:
    """Return the keys of one step's draws."""
    return StepKeys(*jax.random.split(key, 3))


def stage_loss(
    task: TrainTask,
    stage_index: int,
    params: Params,
    batch: dict[str, Any],
    key: PRNGKey,
) -> tuple[Array, dict[str, Array]]:
    """Mean squared error of stage `stage_index` on one batch, and what alignment reached.

    Every random number of sample j comes from `fold_in(key, j)` with j its place in the global
    batch, so the loss does not depend on how the batch is sharded.

    Source: arXiv 2503.09566, Eq. 7-13 and Algorithm 1.
    """
    pyramid, x_0 = task.pyramid, batch["video"]
    stage = pyramid.stages[stage_index]
    batch_size = x_0.shape[0]
    keys = split_step_key(key)

    sample_keys = jax.vmap(jax.random.fold_in, (None, 0))(keys.noise, jnp.arange(batch_size))
    eps, metrics = method.aligned_noise(
        pyramid, stage_index, x_0, sample_keys, task.alignment, batch_sharding=task.batch_sharding
    )
    t = method.sample_times(pyramid, stage_index, keys.time, batch_size)
    x_t, target = method.training_point(pyramid, stage_index, x_0, eps, t)
    cond = drop_condition(task, batch["cond"], keys.dropout, batch_size)

    network_time = pyramid.network_time(stage_index, t)
    positions = jnp.asarray(stage.frame_positions)
    output = task.apply(params, x_t, network_time, positions, stage.frame_stride, cond)
    error = method.mean_squared_error(output, target)  # [b]
    return jnp.mean(method.loss_weight(pyramid, t) * error), metrics


def drop_condition(task: TrainTask, cond: Cond, key: PRNGKey, batch_size: int) -> Cond:
    """Replace the condition of a random share of samples by the null one, for guidance."""
    if cond is None or task.cond_dropout == 0.0:
        return cond
    is_dropped = jax.random.bernoulli(key, task.cond_dropout, (batch_size,))

    def select(null: Array, given: Array) -> Array:
        return jnp.where(is_dropped.reshape(-1, *(1,) * (given.ndim - 1)), null, given)

    return jax.tree.map(select, task.null_cond(cond), cond)
