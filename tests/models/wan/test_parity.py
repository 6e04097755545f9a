"""Wan's transformer equals diffusers' on the same weights, gradients included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.models.full_size import at
from tests.models.wan.wan_reference import (
    CONFIG,
    make_inputs,
    make_reference,
    run_reference,
    to_params,
)
from tpdiff_jax.models import Wan

NUM_FRAMES = 9  # a causal autoencoder's 1 + m latents; 5 and 3 of them in the coarser stages


@pytest.fixture(scope="module")
def reference():
    return make_reference()


@pytest.fixture(scope="module")
def params(reference):
    return to_params(dict(reference.named_parameters()))


@partial(jax.jit, static_argnames="stride")
def apply(params, x, t, positions, stride, cond):
    return Wan(CONFIG).apply(params, x, t, at(positions, x), (stride, 1, 1), cond)


def expected_of(reference, x, t, positions, cond):
    with torch.no_grad():
        return run_reference(reference, torch.from_numpy(x), t, positions, cond).numpy()


def relative(result, expected):
    return np.linalg.norm(np.asarray(result) - expected) / np.linalg.norm(expected)


def stage(stride):
    """Inputs of the stage that keeps one frame in `stride`, and its frames' positions."""
    positions = np.arange(0, NUM_FRAMES, stride, dtype=np.float32)
    return make_inputs(len(positions)), positions


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_forward_equals_diffusers_in_every_stage(reference, params, stride):
    (x, t, cond), positions = stage(stride)
    result = apply(params, x, t, positions, stride, cond)
    assert relative(result, expected_of(reference, x, t, positions, cond)) < 1e-5


def test_forward_equals_diffusers_over_the_whole_range_of_times(reference, params):
    (x, _, cond), positions = stage(4)
    for t in (np.float32([0.0, 999.0]), np.float32([333.3, 744.0])):
        result = apply(params, x, t, positions, 4, cond)
        assert relative(result, expected_of(reference, x, t, positions, cond)) < 1e-4


def test_gradients_of_every_parameter_and_of_the_input_equal_diffusers(reference, params):
    (x, t, cond), positions = stage(2)
    weights = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)

    @jax.jit
    def grads_of(params, x, positions):
        def loss(params, x):
            where = at(positions, x)
            return jnp.sum(weights * Wan(CONFIG).apply(params, x, t, where, (2, 1, 1), cond))

        return jax.grad(loss, argnums=(0, 1))(params, x)

    reference.zero_grad()
    latents = torch.from_numpy(x).requires_grad_()
    output = run_reference(reference, latents, t, positions, cond)
    (output * torch.from_numpy(weights)).sum().backward()
    expected = to_params({name: p.grad for name, p in reference.named_parameters()})
    of_params, of_input = grads_of(params, x, positions)
    errors = jax.tree.map(relative, of_params, expected)
    wrong = {jax.tree_util.keystr(p): e for p, e in jax.tree.leaves_with_path(errors) if e >= 1e-3}
    assert not wrong
    assert relative(of_input, latents.grad.numpy()) < 1e-4


@pytest.mark.parametrize("wrong", ["strides", "positions", "padding", "time"])
def test_parity_would_see_an_error_in(reference, params, wrong):
    (x, t, cond), positions = stage(4)
    expected = expected_of(reference, x, t, positions, cond)
    if wrong == "strides":  # rows 0, 1, 2, ... in every stage: what the published code would take
        positions = np.arange(len(positions), dtype=np.float32)
    if wrong == "positions":
        positions = positions[::-1].copy()
    if wrong == "padding":
        cond = {"text": np.where(cond["text"] == 0.0, 0.1, cond["text"]).astype(np.float32)}
    if wrong == "time":
        t = t + 1.0
    error = relative(apply(params, x, t, positions, 4, cond), expected)
    assert error > (0.02 if wrong in ("strides", "positions") else 1e-3)
