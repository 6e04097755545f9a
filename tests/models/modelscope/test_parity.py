"""ModelScope's network equals diffusers' UNet3DConditionModel: outputs and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.models.full_size import at
from tests.models.modelscope.modelscope_reference import (
    CONFIG,
    make_inputs,
    make_reference,
    run_reference,
    to_params,
)
from tpdiff_jax.models import ModelScope

NETWORK = ModelScope(CONFIG)


@pytest.fixture(scope="module")
def reference():
    return make_reference()


@pytest.fixture(scope="module")
def params(reference):
    return to_params(reference.state_dict())


@partial(jax.jit, static_argnames="stride")
def apply(params, x, t, cond, stride=1):
    positions = at(stride * jnp.arange(x.shape[1], dtype=jnp.float32), x)
    return NETWORK.apply(params, x, t, positions, (stride, 1, 1), cond)


def relative(result, expected):
    return np.linalg.norm(np.asarray(result) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_forward_equals_diffusers_for_every_number_of_frames(reference, params, num_frames):
    x, t, cond = make_inputs(num_frames)
    with torch.no_grad():
        expected = run_reference(reference, x, t, cond).numpy()
    assert relative(apply(params, x, t, cond), expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("num_frames", [1, 3])
def test_gradients_of_every_parameter_equal_diffusers(reference, params, num_frames):
    """A convolution's first and last frame see nothing where there is one: no gradient either."""
    x, t, cond = make_inputs(num_frames)
    weights = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)

    @jax.jit
    def grads_of(params):
        return jax.grad(lambda params: jnp.sum(weights * apply(params, x, t, cond)))(params)

    reference.zero_grad()
    (run_reference(reference, x, t, cond) * torch.from_numpy(weights)).sum().backward()
    expected = to_params({name: p.grad for name, p in reference.named_parameters()})
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))

    def error(found, right):
        # One frame's softmax has no gradient: what is left is rounding.
        if np.abs(right).max() < 1e-5 * scale:
            return float(np.abs(found).max()) / scale
        return relative(found, right)

    errors = jax.tree.map(error, grads_of(params), expected)
    wrong = {jax.tree_util.keystr(p): e for p, e in jax.tree.leaves_with_path(errors) if e >= 1e-3}
    assert not wrong


@pytest.mark.parametrize("wrong", ["order of frames", "convolutions", "text", "time", "entrance"])
def test_parity_would_see_an_error_in(reference, params, wrong):
    x, t, cond = make_inputs(3)
    with torch.no_grad():
        expected = run_reference(reference, x, t, cond).numpy()
    changed = dict(params)
    if wrong == "order of frames":
        x = x[:, [1, 0, 2]]
    if wrong == "convolutions":
        kernel = params["middle"]["end"]["convolutions"]["step_2"]["conv"]["kernel"]
        changed = jax.tree.map(lambda a: a[::-1] if a is kernel else a, params)
    if wrong == "text":
        cond = {"text": cond["text"][:, ::-1] + 0.1}
    if wrong == "time":
        t = t + 1.0
    if wrong == "entrance":
        changed["entrance"] = jax.tree.map(np.zeros_like, params["entrance"])
    result = np.asarray(apply(changed, x, t, cond))
    result = result[:, [1, 0, 2]] if wrong == "order of frames" else result
    assert relative(result, expected) > 1e-3


def test_nothing_tells_the_network_its_frame_rate(params):
    """The reason for which a pyramid over time must be asked for."""
    x, t, cond = make_inputs(3)
    full, half = apply(params, x, t, cond), apply(params, x, t, cond, stride=2)
    np.testing.assert_array_equal(full, half)
