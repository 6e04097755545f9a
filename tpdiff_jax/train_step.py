"""One training step of one pyramid stage: loss -> gradients -> update -> EMA. Pure.

    eps      aligned with the clip's frames, before noising          (Algorithm 1)
    x_t      on the straight line between xs_i and xe_i               (Eq. 7, 8, 10, 12)
    loss     mean squared error against the line's own target         (Eq. 11, 13)

A step that the guard rejects (optim/guard.py) is selected away as if it had never been applied:
parameters, optimizer (schedule included) and EMA stay; data and random key move on with `step`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from tpdiff_jax import method
from tpdiff_jax.optim.guard import judge_step
from tpdiff_jax.train_state import TrainState, TrainTask
from tpdiff_jax.types import Array, Cond, Params, PRNGKey


def train_step(
    task: TrainTask, stage_index: int, state: TrainState, batch: dict[str, Any], key: PRNGKey
) -> tuple[TrainState, dict[str, Array]]:
    """Train stage `stage_index` on one batch: `gradient_step`, then `update_step`.

    Args:
        task: what the step needs; static.
        stage_index: stage, 0 is the coarsest; static.
        state: state before the step.
        batch: `video` [b, f, h, w, c] at full rate, `cond` a pytree with leading axis b.
        key: the run's key; the step's own randomness is `fold_in(key, state.step)`.

    Returns:
        The state after the step and a dict of float32 scalars.
    """
    grads, measured = gradient_step(
        task, stage_index, state.params, state.frozen, state.step, batch, key
    )
    state, said = update_step(task, state, grads, measured["loss"], stage_index)
    return state, measured | said


def gradient_step(
    task: TrainTask,
    stage_index: int,
    params: Params,
    frozen: Params,
    step: Array,
    batch: dict[str, Any],
    key: PRNGKey,
) -> tuple[Params, dict[str, Array]]:
    """The half of a step that depends on its stage; of the optimizer it knows nothing.

    Args:
        task: what the step needs; static.
        stage_index: stage, 0 is the coarsest; static.
        params: what is trained.
        frozen: the rest of the network.
        step: steps taken before.
        batch: as in `train_step`.
        key: the run's key.

    Returns:
        The gradient, a tree of the shapes of `params`, and float32 scalars, `loss` among them.
    """
    (loss, metrics), grads = loss_and_grads(
        task, stage_index, params, batch, jax.random.fold_in(key, step), frozen
    )
    return grads, metrics | {"loss": loss}


def update_step(
    task: TrainTask, state: TrainState, grads: Params, loss: Array, stage_index: int | Array
) -> tuple[TrainState, dict[str, Array]]:
    """The half of a step that all stages share: guard, optimizer, moving average.

    Args:
        task: guard, optimizer, schedule and largest decay; static.
        state: before the step.
        grads: of the loss, of the shapes of `state.params`.
        loss: a scalar.
        stage_index: the step's stage, whose memory the guard looks at.

    Returns:
        The state after the step and a dict of float32 scalars.
    """
    grad_norm = optax.tree.norm(grads)
    updated = apply_gradients(task, state, grads)
    verdict, guard = judge_step(task.guard, state.guard, stage_index, loss, grad_norm)
    # Selected, not scaled by 0 or 1: 0 * NaN is NaN.
    kept = jax.tree.map(lambda new, old: jnp.where(verdict.is_good, new, old), updated, state)
    said = {
        "grad_norm": grad_norm,
        "learning_rate": jnp.asarray(task.schedule(state.num_updates), jnp.float32),
        "is_skipped": 1.0 - verdict.is_good.astype(jnp.float32),
        "is_spike": verdict.is_spike.astype(jnp.float32),
        "bad_in_a_row": verdict.bad_in_a_row.astype(jnp.float32),
    }
    return kept._replace(step=state.step + 1, guard=guard), said


def apply_gradients(task: TrainTask, state: TrainState, grads: Params) -> TrainState:
    """Update parameters, optimizer and moving average, whose decay warms up.

        ema <- d ema + (1 - d) params,  d = min(ema_decay, (1 + n) / (10 + n)),  n = num_updates

    Args:
        task: optimizer and largest decay.
        state: before the update.
        grads: of the loss, of the shapes of `state.params`.

    Returns:
        The state with one more update; `step` and `guard` are left as they are.
    """
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
    """Return the keys of one step's draws.

    Args:
        key: the step's own.

    Returns:
        Each to be used once.
    """
    return StepKeys(*jax.random.split(key, 3))


class Draws(NamedTuple):
    """The random numbers of a batch, by sample; those of sample j depend on its place j alone.

    Attributes:
        noise_keys: key of each sample's noise, [b].
        t: time in the stage, [b].
        is_dropped: whether the sample trains without its condition, [b].
    """

    noise_keys: PRNGKey
    t: Array
    is_dropped: Array


def draw(task: TrainTask, stage_index: int, batch_size: int, key: PRNGKey) -> Draws:
    """Draw what is random in a step on the whole batch, however it is then cut or sharded.

    Args:
        task: pyramid and share of dropped conditions.
        stage_index: stage, 0 is the coarsest.
        batch_size: b.
        key: the step's own.

    Returns:
        Keys, times and drops of b samples.
    """
    keys = split_step_key(key)
    return Draws(
        noise_keys=jax.vmap(jax.random.fold_in, (None, 0))(keys.noise, jnp.arange(batch_size)),
        t=method.sample_times(task.pyramid, stage_index, keys.time, batch_size),
        is_dropped=jax.random.bernoulli(keys.dropout, task.cond_dropout, (batch_size,)),
    )


def loss_and_grads(
    task: TrainTask,
    stage_index: int,
    params: Params,
    batch: dict[str, Any],
    key: PRNGKey,
    frozen: Params | None = None,
) -> tuple[tuple[Array, dict[str, Array]], Params]:
    """Loss, statistics and gradient of a batch: means over `task.grad_accum_steps` equal parts.

    The random numbers are those of the whole batch, so the parts change rounding only.

    Args:
        task: what the step needs.
        stage_index: stage, 0 is the coarsest.
        params: what is trained.
        batch: as in `train_step`.
        key: the step's own.
        frozen: the rest of the network; None where all of it is trained.

    Returns:
        ((loss, metrics), gradient): float32 scalars, and a tree of the shapes of `params`.
    """
    loss = functools.partial(stage_loss, task, stage_index, frozen=frozen)
    grad = jax.value_and_grad(loss, has_aux=True)
    draws = draw(task, stage_index, batch["video"].shape[0], key)
    num_parts = task.grad_accum_steps
    if num_parts == 1:
        return grad(params, batch, draws)

    def cut(x: Array) -> Array:
        # No -1 here: the label of clips without digits is [b, 0], and 0 / 0 has no answer.
        rows = x.shape[0] // num_parts
        parts = x.reshape(num_parts, rows, *x.shape[1:])  # [parts, b / parts, ...]
        if task.batch_sharding is None:
            return parts
        # Rows move between devices, so that every part is spread over all of them.
        spec = PartitionSpec(None, *task.batch_sharding.spec)
        return jax.lax.with_sharding_constraint(
            parts, NamedSharding(task.batch_sharding.mesh, spec)
        )

    def add_part(total: Any, part: tuple[dict[str, Any], Draws]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, grad(params, *part)), None

    parts = jax.tree.map(cut, (batch, draws))
    shapes = jax.eval_shape(grad, params, *jax.tree.map(lambda x: x[0], parts))
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add_part, start, parts)
    return jax.tree.map(lambda leaf: leaf / num_parts, total)


def stage_loss(
    task: TrainTask,
    stage_index: int,
    params: Params,
    batch: dict[str, Any],
    draws: Draws,
    frozen: Params | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Mean squared error of one stage on one batch, and what alignment reached.

    Args:
        task: what the step needs.
        stage_index: stage, 0 is the coarsest.
        params: what is trained.
        batch: as in `train_step`.
        draws: the random numbers of the b samples.
        frozen: the rest of the network; None where all of it is trained.

    Returns:
        The loss, a float32 scalar, and the statistics of `method.aligned_noise`.

    Source: arXiv 2503.09566, Eq. 7-13 and Algorithm 1.
    """
    pyramid, x_0, t = task.pyramid, batch["video"], draws.t
    stage = pyramid.stages[stage_index]
    eps, metrics = method.aligned_noise(
        pyramid,
        stage_index,
        x_0,
        draws.noise_keys,
        task.alignment,
        batch_sharding=task.batch_sharding,
    )
    perturbation = method.coarse_perturbation(pyramid, stage_index, draws.noise_keys, x_0.shape[-1])
    x_t, target = method.training_point(pyramid, stage_index, x_0, eps, t, perturbation)
    cond = drop_condition(task, batch["cond"], draws.is_dropped)

    network_time = pyramid.network_time(stage_index, t)
    network_params = task.adaptation.attach(params, frozen or {})
    output = task.apply(network_params, x_t, network_time, stage.positions, stage.strides, cond)
    error = method.mean_squared_error(output, target)  # [b]
    return jnp.mean(method.loss_weight(pyramid, stage_index, t) * error), metrics


def drop_condition(task: TrainTask, cond: Cond, is_dropped: Array) -> Cond:
    """Replace the condition of the dropped samples by the null one, for guidance.

    Args:
        task: share of dropped conditions and the null condition.
        cond: pytree with leading axis b, or None.
        is_dropped: which samples lose their condition, bool [b].

    Returns:
        A tree of the same shapes; None stays None.
    """
    if cond is None or task.cond_dropout == 0.0:
        return cond

    def select(null: Array, given: Array) -> Array:
        return jnp.where(is_dropped.reshape(-1, *(1,) * (given.ndim - 1)), null, given)

    return jax.tree.map(select, task.null_cond(cond), cond)
