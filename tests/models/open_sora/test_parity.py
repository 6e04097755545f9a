"""Open-Sora's transformers equal the PyTorch reference on the same weights, gradients included."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.models.full_size import at
from tests.models.open_sora.open_sora_reference import (
    CONFIGS,
    FPS,
    make_inputs,
    make_reference,
    run_reference,
    to_params,
)
from tpdiff_jax.models import OpenSora
from tpdiff_jax.types import Positions

NUM_FRAMES = 8
CONSTANT = ("no_text", "frequencies")  # tables of the files that no code trains


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    model = make_reference(request.param)
    return request.param, model, to_params(model.state_dict(), CONFIGS[request.param])


@partial(jax.jit, static_argnames=("form", "strides"))
def apply(form, params, x, t, positions, strides, cond):
    return OpenSora(CONFIGS[form]).apply(params, x, t, positions, strides, cond)


def run(form, params, x, t, frames, stride, cond):
    return np.asarray(apply(form, params, x, t, at(frames, x), (stride, 1, 1), cond))


def expected_of(model, x, t, frames, cond, **more):
    with torch.no_grad():
        return run_reference(model, torch.from_numpy(x), t, frames, cond, **more).numpy()


def relative(result, expected):
    return np.linalg.norm(np.asarray(result) - expected) / np.linalg.norm(expected)


def stage(stride):
    """Inputs of the stage that keeps one frame in `stride`, and its frames' positions."""
    frames = np.arange(0, NUM_FRAMES, stride, dtype=np.float32)
    return make_inputs(len(frames)), frames


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_forward_equals_the_reference_in_every_stage(case, stride):
    form, model, params = case
    (x, t, cond), frames = stage(stride)
    result = run(form, params, x, t, frames, stride, cond)
    assert relative(result, expected_of(model, x, t, frames, cond)) < 1e-5


@pytest.mark.parametrize("t", [[0.0, 999.0], [333.0, 744.0]])
def test_forward_equals_the_reference_over_the_whole_range_of_times(case, t):
    form, model, params = case
    (x, _, cond), frames = stage(4)
    t = np.float32(t)
    result = run(form, params, x, t, frames, 4, cond)
    assert relative(result, expected_of(model, x, t, frames, cond)) < 1e-4


def test_a_stage_of_small_frames_stands_in_the_middle_of_what_it_covers(case):
    form, model, params = case
    (x, t, cond), frames = stage(2)
    rows, columns = (np.float32(0.5 + 2 * np.arange(n)) for n in x.shape[2:4])
    where = Positions(frames, rows, columns)
    result = apply(form, params, x, t, where, (2, 2, 2), cond)
    assert relative(result, expected_of(model, x, t, frames, cond, stride=2)) < 1e-5


def test_a_text_of_zeros_is_the_embedding_of_no_text_under_the_same_mask(case):
    form, model, params = case
    (x, t, cond), frames = stage(4)
    null = OpenSora(CONFIGS[form]).null_cond(cond | {"caption": 1})
    assert null["caption"] == 1 and null["text"].dtype == cond["text"].dtype
    mixed = {
        "text": np.stack([cond["text"][0], np.asarray(null["text"])[1]]),
        "text_mask": null["text_mask"],
    }
    result = run(form, params, x, t, frames, 4, mixed)
    expected = expected_of(model, x, t, frames, cond, is_null=(False, True))
    assert relative(result, expected) < 1e-5
    assert relative(result[1], expected_of(model, x, t, frames, cond)[1]) > 1e-2


def test_frames_a_second_are_those_of_the_clip_or_of_the_stage():
    model = make_reference("stdit3")
    params = to_params(model.state_dict(), CONFIGS["stdit3"])
    (x, t, cond), frames = stage(4)
    network = OpenSora(dataclasses.replace(CONFIGS["stdit3"], fps_of="stage"))
    result = network.apply(params, x, t, at(frames, x), (4, 1, 1), cond)
    assert relative(result, expected_of(model, x, t, frames, cond, fps=FPS / 4)) < 1e-5
    assert relative(result, expected_of(model, x, t, frames, cond)) > 1e-3


def test_gradients_of_every_parameter_and_of_the_input_equal_the_reference(case):
    form, model, params = case
    (x, t, cond), frames = stage(2)
    weights = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)

    @jax.jit
    def grads_of(params, x):
        def loss(params, x):
            network = OpenSora(CONFIGS[form])
            return jnp.sum(weights * network.apply(params, x, t, at(frames, x), (2, 1, 1), cond))

        return jax.grad(loss, argnums=(0, 1))(params, x)

    model.zero_grad()
    latents = torch.from_numpy(x).requires_grad_()
    (run_reference(model, latents, t, frames, cond) * torch.from_numpy(weights)).sum().backward()
    gradients = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    gradients |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    expected = to_params(gradients, CONFIGS[form])
    of_params, of_input = grads_of(params, x)
    errors = {}
    for (path, found), wanted in zip(
        jax.tree.leaves_with_path(of_params), jax.tree.leaves(expected), strict=True
    ):
        name = jax.tree_util.keystr(path)
        if path[-1].key in CONSTANT:
            np.testing.assert_array_equal(found, 0.0, name)
        else:
            errors[name] = relative(found, wanted)
    assert not {name: error for name, error in errors.items() if not error < 1e-3}
    assert relative(of_input, latents.grad.numpy()) < 1e-4


@pytest.mark.parametrize("wrong", ["strides", "positions", "padding", "time", "size"])
def test_parity_would_see_an_error_in(case, wrong):
    form, model, params = case
    (x, t, cond), frames = stage(4)
    expected, strides = expected_of(model, x, t, frames, cond), (4, 1, 1)
    if wrong == "strides":  # 0, 1, 2, ... in every stage: what the published code would take
        frames = np.arange(len(frames), dtype=np.float32)
    if wrong == "positions":
        frames = np.float32(7.0) - frames[::-1] ** 2
    if wrong == "padding":
        cond = cond | {"text_mask": np.ones_like(cond["text_mask"])}
    if wrong == "time":
        t = t + 1.0
    if wrong == "size":
        strides = (4, 2, 2)
    result = apply(form, params, x, t, at(frames, x), strides, cond)
    assert relative(result, expected) > 1e-3
