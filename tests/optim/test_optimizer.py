"""Schedule clamps, decay on matrices only, and Muon on the blocks' matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.optim.optimizer import (
    OptimizerSpec,
    check_has_work,
    make_optimizer,
    make_schedule,
)


def test_warm_up_rises_linearly_and_the_cosine_ends_at_zero() -> None:
    schedule = make_schedule(OptimizerSpec(learning_rate=1.0, warmup_steps=10), 1000)
    rates = np.array([float(schedule(n)) for n in range(1001)])
    np.testing.assert_allclose(np.diff(rates[:11]), np.full(10, 1 / 11), rtol=1e-3, atol=2e-3)
    assert rates.max() == pytest.approx(1.0)
    halfway = 10 + (1000 - 10) // 2
    assert rates[halfway] == pytest.approx(0.5, abs=1e-3)
    assert rates[1000] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 99])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_any_length_from_one_step_works(num_steps: int, schedule: str) -> None:
    spec = OptimizerSpec(warmup_steps=100, schedule=schedule)
    rates = [float(make_schedule(spec, num_steps)(n)) for n in range(num_steps)]
    assert all(0 < rate <= spec.learning_rate * (1 + 1e-6) for rate in rates)


def test_weight_decay_leaves_everything_but_matrices_alone() -> None:
    params = {
        "kernel": jnp.ones((3, 3)),
        "bias": jnp.ones((2, 3)),
        "scale": jnp.ones(3),
        "table": jnp.ones((3, 3)),
    }
    spec = OptimizerSpec(schedule="constant", warmup_steps=0, weight_decay=0.1, learning_rate=0.5)
    tx = make_optimizer(spec, make_schedule(spec, 10))
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    for name in ("bias", "scale", "table"):
        np.testing.assert_array_equal(updates[name], 0.0)


def test_weight_decay_reaches_low_rank_matrices() -> None:
    params = {"qkv": {"lora_a": jnp.ones((2, 8, 4)), "lora_b": jnp.ones((4, 8))}}
    spec = OptimizerSpec(schedule="constant", warmup_steps=0, weight_decay=0.1, learning_rate=0.5)
    tx = make_optimizer(spec, make_schedule(spec, 10))
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    for update in jax.tree.leaves(updates):
        np.testing.assert_allclose(update, -0.05, rtol=1e-6)


def test_muon_without_a_stack_of_matrices_is_refused() -> None:
    low_rank = {"lora_a": jnp.ones((2, 8, 4)), "lora_b": jnp.ones((2, 4, 8))}
    for params in (low_rank, {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}):
        with pytest.raises(ValueError, match=r"optim\.name='muon' is for .* allowed: 'adamw'"):
            check_has_work("muon", params)
        check_has_work("adamw", params)
    check_has_work("muon", {"low": low_rank, "kernel": jnp.ones((2, 8, 8))})


def test_muon_makes_each_layers_update_near_orthogonal() -> None:
    depth, d = 2, 8
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(depth, d, d)))[0] for _ in range(2))
    grads = {
        "kernel": jnp.asarray(left * np.geomspace(0.2, 1.0, d) @ right, jnp.float32),
        "bias": jnp.ones((depth, d)),
    }
    params = jax.tree.map(jnp.zeros_like, grads)
    spec = OptimizerSpec(name="muon", schedule="constant", warmup_steps=0, weight_decay=0.0)
    tx = make_optimizer(spec, make_schedule(spec, 10))
    updates, _ = tx.update(grads, tx.init(params), params)
    for layer in range(depth):
        singular = np.linalg.svd(np.asarray(updates["kernel"][layer]), compute_uv=False)
        # Five Newton-Schulz steps bring all singular values into [0.68, 1.13] times a constant.
        assert singular.max() / singular.min() < 2.0  # the gradient's own ratio is 5
    # Everything else is Adam with Nesterov's momentum, first step b1 (1-b1)/(1-b1^2) + 1.
    nesterov = 0.9 * 0.1 / (1 - 0.9**2) + 1
    np.testing.assert_allclose(updates["bias"], -spec.learning_rate * nesterov, rtol=1e-3)


def test_clipping_bounds_the_global_norm() -> None:
    params = {"kernel": jnp.zeros((2, 2))}
    spec = OptimizerSpec(clip_norm=1e-3, schedule="constant", warmup_steps=0)
    tx = make_optimizer(spec, make_schedule(spec, 10))
    small, _ = tx.update({"kernel": jnp.full((2, 2), 1e-6)}, tx.init(params), params)
    large, _ = tx.update({"kernel": jnp.full((2, 2), 1e6)}, tx.init(params), params)
    # Adam's first step is the same for both unless clipping lets the large one through unscaled.
    assert np.all(np.isfinite(large["kernel"]))
    np.testing.assert_allclose(small["kernel"], large["kernel"], rtol=0.1)
