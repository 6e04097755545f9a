"""The Flux transformer equals diffusers' on the same weights, gradients included."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.models.flux.flux_reference import (
    CONFIG,
    make_inputs,
    make_reference,
    run_reference,
    to_params,
)
from tests.models.full_size import at
from tpdiff_jax.models import Flux

NUM_FRAMES = 5  # a causal autoencoder's 1 + m latents; 3 and 2 of them in the coarser stages


@pytest.fixture(scope="module")
def reference():
    return make_reference()


@pytest.fixture(scope="module")
def params(reference):
    return to_params(dict(reference.named_parameters()))


@partial(jax.jit, static_argnames=("network", "stride"))
def apply(network, params, x, t, positions, stride, cond):
    return network.apply(params, x, t, at(positions, x), (stride, 1, 1), cond)


def relative(result, expected):
    return np.linalg.norm(np.asarray(result) - expected) / np.linalg.norm(expected)


def stage(stride):
    """Inputs of the stage that keeps one frame in `stride`, and its frames' positions."""
    positions = np.arange(0, NUM_FRAMES, stride, dtype=np.float32)
    return make_inputs(len(positions)), positions


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_forward_equals_diffusers_in_every_stage(reference, params, stride, is_causal):
    (x, t, cond), positions = stage(stride)
    network = Flux(dataclasses.replace(CONFIG, is_causal=is_causal))
    result = apply(network, params, x, t, positions, stride, cond)
    with torch.no_grad():
        expected = run_reference(reference, x, t, positions, cond, is_causal).numpy()
    assert relative(result, expected) < 1e-5


def test_forward_equals_diffusers_over_the_whole_range_of_times(reference, params):
    (x, _, cond), positions = stage(4)
    for t in (np.float32([0.0, 999.0]), np.float32([333.3, 744.0])):
        result = apply(Flux(CONFIG), params, x, t, positions, 4, cond)
        with torch.no_grad():
            expected = run_reference(reference, x, t, positions, cond).numpy()
        assert relative(result, expected) < 1e-4


@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients_of_every_parameter_equal_diffusers(reference, params, is_causal):
    (x, t, cond), positions = stage(2)
    weights = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    network = Flux(dataclasses.replace(CONFIG, is_causal=is_causal))

    @jax.jit
    def grads_of(params, positions):
        def loss(params):
            return jnp.sum(weights * network.apply(params, x, t, where, (2, 1, 1), cond))

        where = at(positions, x)
        return jax.grad(loss)(params)

    reference.zero_grad()
    output = run_reference(reference, x, t, positions, cond, is_causal)
    (output * torch.from_numpy(weights)).sum().backward()
    expected = to_params({name: p.grad for name, p in reference.named_parameters()})
    result = grads_of(params, positions)
    errors = jax.tree.map(relative, result, expected)
    wrong = {jax.tree_util.keystr(p): e for p, e in jax.tree.leaves_with_path(errors) if e >= 1e-3}
    assert not wrong


@pytest.mark.parametrize("wrong", ["positions", "text mask", "causal mask", "time"])
def test_parity_would_see_an_error_in(reference, params, wrong):
    (x, t, cond), positions = stage(2)
    with torch.no_grad():
        expected = run_reference(reference, x, t, positions, cond, is_causal=True).numpy()
    if wrong == "positions":
        positions = np.arange(len(positions), dtype=np.float32)
    if wrong == "text mask":
        cond = cond | {"text_mask": np.ones_like(cond["text_mask"])}
    if wrong == "time":
        t = t + 1.0
    network = Flux(dataclasses.replace(CONFIG, is_causal=wrong != "causal mask"))
    result = apply(network, params, x, t, positions, 2, cond)
    assert relative(result, expected) > 1e-3
