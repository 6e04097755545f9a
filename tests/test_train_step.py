"""The train step with a two-parameter network: loss, guard, averages and dropout by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tpdiff_jax import method
from tpdiff_jax.method.stage_targets import coarse_perturbation
from tpdiff_jax.optim.guard import GuardSpec
from tpdiff_jax.train_state import TrainTask, state_of_params
from tpdiff_jax.train_step import draw, loss_and_grads, stage_loss, train_step

BATCH, FRAMES, SIZE = 4, 8, 2
NULL_LABEL = 10


def linear_network(params: Any, x_t: Any, t: Any, positions: Any, strides: Any, cond: Any) -> Any:
    """Answer a x_t + b label: simple enough for expected values by hand."""
    del t, positions, strides
    label = cond["label"].astype(jnp.float32)[:, 0].reshape(-1, 1, 1, 1, 1)
    return params["a"] * x_t + params["b"] * label


def make_task(**changes: Any) -> TrainTask:
    """Return a vanilla flow task with plain SGD; `changes` replace fields."""
    fields: dict[str, Any] = {
        "pyramid": method.make_pyramid(
            method.FlowPath(),
            shape=(FRAMES, SIZE, SIZE),
            strides=changes.pop("strides", (1,)),
            **changes.pop("pyramid_fields", {}),
        ),
        "alignment": method.AlignmentSpec(mode="none"),
        "apply": linear_network,
        "null_cond": lambda cond: {"label": jnp.full_like(cond["label"], NULL_LABEL)},
        "optimizer": optax.sgd(0.1),
        "schedule": optax.constant_schedule(0.1),
        "ema_decay": 0.999,
        "cond_dropout": 0.0,
    }
    return TrainTask(**(fields | changes))


def init(key: Any) -> dict[str, Any]:
    """Return a = 1, b = 0."""
    del key
    return {"a": jnp.ones(()), "b": jnp.zeros(())}


@pytest.fixture
def batch() -> dict[str, Any]:
    video = np.random.default_rng(0).uniform(-1, 1, (BATCH, FRAMES, SIZE, SIZE, 1))
    label = np.arange(BATCH, dtype=np.int32)[:, None]
    return {"video": jnp.asarray(video, jnp.float32), "cond": {"label": jnp.asarray(label)}}


def test_one_stage_is_ordinary_flow_matching(batch: dict[str, Any]) -> None:
    task, key = make_task(), jax.random.key(3)
    loss, _ = stage_loss(task, 0, init(key), batch, draw(task, 0, BATCH, key))
    key_time, key_noise, _ = jax.random.split(key, 3)
    sample_keys = jax.vmap(jax.random.fold_in, (None, 0))(key_noise, jnp.arange(BATCH))
    eps, _ = method.aligned_noise(task.pyramid, 0, batch["video"], sample_keys, task.alignment)
    t = np.asarray(method.sample_times(task.pyramid, 0, key_time, BATCH)).reshape(-1, 1, 1, 1, 1)
    x_0, eps = np.asarray(batch["video"]), np.asarray(eps)
    expected = np.mean(((1 - t) * x_0 + t * eps - (eps - x_0)) ** 2)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_coarse_noise_changes_what_a_stage_knows_and_no_other_draw(batch: dict[str, Any]) -> None:
    key, losses = jax.random.key(3), {}
    for tau in (0.0, 0.5):
        task = make_task(strides=(4, 2, 1), pyramid_fields={"coarse_noise": tau})
        for index in range(3):
            draws = draw(task, index, BATCH, key)
            eps, _ = method.aligned_noise(
                task.pyramid, index, batch["video"], draws.noise_keys, task.alignment
            )
            n = coarse_perturbation(task.pyramid, index, draws.noise_keys, 1)
            assert (n is None) == (tau == 0.0 or index == 0)
            arguments = (index, batch["video"], eps, draws.t)
            point = method.training_point(task.pyramid, *arguments, *([] if n is None else [n]))
            expected = np.mean(np.square(np.subtract(*point)))
            losses[tau, index], _ = stage_loss(task, index, init(key), batch, draws)
            np.testing.assert_allclose(losses[tau, index], expected, rtol=1e-6)
    assert losses[0.0, 0] == losses[0.5, 0]
    for index in (1, 2):
        assert abs(losses[0.0, index] - losses[0.5, index]) > 0.01


@pytest.mark.parametrize("index", [1, 2])
def test_coarse_noise_is_that_of_the_whole_batch_however_it_is_cut(
    batch: dict[str, Any], index: int
) -> None:
    fields = {"strides": (4, 2, 1), "pyramid_fields": {"coarse_noise": 0.5}}
    (whole, _), grads = loss_and_grads(
        make_task(**fields), index, init(None), batch, jax.random.key(3)
    )
    (parts, _), others = loss_and_grads(
        make_task(**fields, grad_accum_steps=2), index, init(None), batch, jax.random.key(3)
    )
    np.testing.assert_allclose(whole, parts, rtol=1e-6)
    np.testing.assert_allclose(grads["a"], others["a"], rtol=1e-5)


def test_first_update_is_gradient_descent_and_the_average_follows(batch: dict[str, Any]) -> None:
    task, key = make_task(), jax.random.key(3)
    state = state_of_params(task, init(key), key)
    new, metrics = jax.jit(train_step, static_argnums=(0, 1))(task, 0, state, batch, key)
    step_key = jax.random.fold_in(key, 0)
    draws = draw(task, 0, BATCH, step_key)
    grads = jax.grad(lambda p: stage_loss(task, 0, p, batch, draws)[0])(state.params)
    for name in ("a", "b"):
        expected = state.params[name] - 0.1 * grads[name]
        np.testing.assert_allclose(new.params[name], expected, rtol=1e-5)
        # The average warms up: its first decay is min(0.999, 1/10).
        average = 0.1 * state.params[name] + 0.9 * new.params[name]
        np.testing.assert_allclose(new.ema_params[name], average, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.hypot(*grads.values()), rtol=1e-5)
    assert (int(new.step), int(new.num_updates)) == (1, 1)
    assert float(metrics["is_skipped"]) == 0.0


def nan_loss(params: Any, x_t: Any, *rest: Any) -> Any:
    """Answer NaN."""
    return linear_network(params, x_t, *rest) * jnp.nan


def nan_gradient(params: Any, x_t: Any, *rest: Any) -> Any:
    """Answer well, with a NaN in the gradient: the slope of a square root at 0."""
    return linear_network(params, x_t, *rest) + 0.0 * jnp.sqrt(params["b"] * 0.0)


@pytest.mark.parametrize("bad_at", [0, 6])
@pytest.mark.parametrize("fault", ["loss", "gradient", "pixel", "infinite clip", "spike"])
def test_a_run_with_a_bad_step_equals_one_in_which_it_was_never_applied(
    batch: dict[str, Any], fault: str, bad_at: int
) -> None:
    """Parameters, average, optimizer with its schedule and the guard's memory, bit for bit."""
    if fault == "spike" and bad_at == 0:
        pytest.skip("a first step has nothing to stand out from")
    task = make_task(
        optimizer=optax.adam(optax.linear_schedule(0.1, 0.0, 20)),
        guard=GuardSpec(spike_factor=50.0, window=4, warmup_steps=2, max_bad_steps=3),
    )
    bad_task, bad_batch = task, batch
    if fault == "loss":
        bad_task = task._replace(apply=nan_loss)
    elif fault == "gradient":
        bad_task = task._replace(apply=nan_gradient)
    elif fault == "pixel":
        bad_batch = batch | {"video": batch["video"].at[1, 2, 0, 0, 0].set(jnp.nan)}
    elif fault == "infinite clip":
        bad_batch = batch | {"video": batch["video"].at[2].set(jnp.inf)}
    else:
        bad_batch = batch | {"video": batch["video"] * 100.0}
    step, key = jax.jit(train_step, static_argnums=(0, 1)), jax.random.key(0)
    disturbed = undisturbed = state_of_params(task, init(key), key)
    for count in range(bad_at + 3):
        if count == bad_at:
            disturbed, metrics = step(bad_task, 0, disturbed, bad_batch, key)
            assert float(metrics["is_skipped"]) == 1.0
            assert float(metrics["is_spike"]) == float(fault == "spike")
            undisturbed = undisturbed._replace(step=undisturbed.step + 1)  # never applied
            assert_same_bits(disturbed, undisturbed._replace(guard=disturbed.guard))
        else:
            disturbed, metrics = step(task, 0, disturbed, batch, key)
            assert float(metrics["is_skipped"]) == 0.0
            undisturbed, _ = step(task, 0, undisturbed, batch, key)
    assert_same_bits(disturbed, undisturbed)
    assert int(disturbed.step) - int(disturbed.num_updates) == 1


def assert_same_bits(a: Any, b: Any) -> None:
    """Compare two states bit for bit."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("mode", method.noise_alignment.ALIGNMENT_MODES)
def test_a_clip_of_nan_is_a_skipped_step_whatever_pairs_the_noise(
    batch: dict[str, Any], mode: str
) -> None:
    task = make_task(strides=(2, 1), alignment=method.AlignmentSpec(mode=mode, group_size=BATCH))
    bad = batch | {"video": batch["video"].at[1].set(jnp.nan)}
    state = state_of_params(task, init(jax.random.key(0)), jax.random.key(0))
    key = jax.random.key(1)
    skipped, metrics = jax.jit(train_step, static_argnums=(0, 1))(task, 1, state, bad, key)
    assert float(metrics["is_skipped"]) == 1.0
    assert_same_bits(skipped.params, state.params)


def test_randomness_moves_on_with_the_step(batch: dict[str, Any]) -> None:
    task, key = make_task(optimizer=optax.sgd(0.0)), jax.random.key(0)
    state = state_of_params(task, init(key), key)
    state, first = train_step(task, 0, state, batch, key)
    _, second = train_step(task, 0, state, batch, key)
    assert float(first["loss"]) != float(second["loss"])


@pytest.mark.parametrize("level", ["coarsest", "stage"])
def test_gradients_accumulated_over_parts_are_those_of_the_whole_batch(
    batch: dict[str, Any], level: str
) -> None:
    """Noise, times, dropout and alignment groups included: else losses would differ by percents."""
    alignment = method.AlignmentSpec(mode="nearest", level=level, group_size=2)
    fields = {"strides": (2, 1), "alignment": alignment, "cond_dropout": 0.5}
    key, step = jax.random.key(3), jax.jit(train_step, static_argnums=(0, 1))
    whole, parts = make_task(**fields), make_task(**fields, grad_accum_steps=2)
    state = state_of_params(whole, init(key), key)
    one, metrics = step(whole, 1, state, batch, key)
    two, metrics_in_parts = step(parts, 1, state, batch, key)
    np.testing.assert_allclose(metrics_in_parts["loss"], metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics_in_parts["grad_norm"], metrics["grad_norm"], rtol=1e-5)
    for name in ("a", "b"):
        np.testing.assert_allclose(two.params[name], one.params[name], rtol=1e-6)


@pytest.mark.parametrize("stage_index", [0, 1, 2])
def test_dropped_conditions_are_null_at_the_stated_rate(
    batch: dict[str, Any], stage_index: int
) -> None:
    seen = []

    def spy(params: Any, x_t: Any, t: Any, positions: Any, strides: Any, cond: Any) -> Any:
        seen.append(np.asarray(cond["label"]))
        assert len(positions.frames) == x_t.shape[1] == FRAMES // strides[0]
        return linear_network(params, x_t, t, positions, strides, cond)

    task = make_task(strides=(4, 2, 1), apply=spy, cond_dropout=0.25)
    with jax.disable_jit():
        for seed in range(40):
            draws = draw(task, stage_index, BATCH, jax.random.key(seed))
            stage_loss(task, stage_index, init(None), batch, draws)
    labels = np.stack(seen)  # [runs, b, 1]
    is_null = labels == NULL_LABEL
    # 160 draws of probability 0.25: four standard deviations are 0.137.
    assert abs(is_null.mean() - 0.25) < 0.137
    assert np.all(is_null | (labels == np.arange(BATCH)[:, None]))
