"""The AnimateDiff network equals diffusers' on the same weights, gradients included."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from tests.models.animatediff.animatediff_reference import (
    CONFIG,
    index_positions,
    make_inputs,
    make_reference,
    randomise,
    run_reference,
    see_one_frame,
    to_params,
)
from tests.models.full_size import at
from tpdiff_jax.models import AnimateDiff

NUM_FRAMES = 8
NORMS = ("all_frames", "per_frame")


def reference_of(motion_norm, positions):
    """The form of diffusers, or the patched one; its tables hold the rows of these positions."""
    model = index_positions(make_reference(), positions)
    return see_one_frame(model) if motion_norm == "per_frame" else model


@pytest.fixture(scope="module")
def params():
    return to_params(dict(make_reference().named_parameters()))


@partial(jax.jit, static_argnames=("network", "stride"))
def apply(network, params, x, t, positions, stride, cond):
    return network.apply(params, x, t, at(positions, x), (stride, 1, 1), cond)


def network_of(motion_norm):
    return AnimateDiff(dataclasses.replace(CONFIG, motion_norm=motion_norm))


def relative(result, expected):
    return np.linalg.norm(np.asarray(result) - expected) / np.linalg.norm(expected)


def stage(stride):
    """Inputs of the stage that keeps one frame in `stride`, and its frames' positions."""
    positions = np.arange(0, NUM_FRAMES, stride, dtype=np.float32)
    return make_inputs(len(positions)), positions


@pytest.mark.parametrize("motion_norm", NORMS)
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_forward_equals_diffusers_in_every_stage(params, stride, motion_norm):
    (x, t, cond), positions = stage(stride)
    result = apply(network_of(motion_norm), params, x, t, positions, stride, cond)
    with torch.no_grad():
        expected = run_reference(reference_of(motion_norm, positions), x, t, cond).numpy()
    assert relative(result, expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("motion_norm", NORMS)
def test_gradients_of_every_parameter_equal_diffusers(params, motion_norm):
    (x, t, cond), positions = stage(2)
    weights = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    network, reference = network_of(motion_norm), reference_of(motion_norm, positions)

    @jax.jit
    def grads_of(params):
        def loss(params):
            return jnp.sum(weights * network.apply(params, x, t, where, (2, 1, 1), cond))

        where = at(positions, x)
        return jax.grad(loss)(params)

    (run_reference(reference, x, t, cond) * torch.from_numpy(weights)).sum().backward()
    expected = to_params({name: p.grad for name, p in reference.named_parameters()})
    errors = jax.tree.map(relative, grads_of(params), expected)
    wrong = {jax.tree_util.keystr(p): e for p, e in jax.tree.leaves_with_path(errors) if e >= 1e-3}
    assert not wrong


def test_without_motion_it_is_stable_diffusion_on_every_frame(params):
    model = UNet2DConditionModel(
        sample_size=4, in_channels=3, out_channels=3, block_out_channels=(8, 16),
        layers_per_block=1, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), norm_num_groups=4,
        cross_attention_dim=10, attention_head_dim=2,
    )  # fmt: skip
    randomise(model, seed=3)
    tensors = {
        name: torch.zeros_like(p) if ".motion_modules." in name else model.get_parameter(name)
        for name, p in make_reference().named_parameters()
    }
    (x, t, cond), positions = stage(1)
    result = apply(network_of("per_frame"), to_params(tensors), x, t, positions, 1, cond)
    frames = torch.from_numpy(np.moveaxis(x, -1, 2).reshape(-1, 3, 4, 6))
    text = torch.from_numpy(cond["text"]).repeat_interleave(NUM_FRAMES, dim=0)
    times = torch.from_numpy(t).repeat_interleave(NUM_FRAMES)
    with torch.no_grad():
        expected = model(frames, times, encoder_hidden_states=text).sample
    expected = expected.reshape(2, NUM_FRAMES, 3, 4, 6).movedim(2, -1).numpy()
    assert relative(result, expected) < 1e-4


@pytest.mark.parametrize("wrong", ["positions", "motion norm", "text", "time"])
def test_parity_would_see_an_error_in(params, wrong):
    (x, t, cond), positions = stage(2)
    with torch.no_grad():
        expected = run_reference(reference_of("per_frame", positions), x, t, cond).numpy()
    if wrong == "positions":
        positions = np.arange(len(positions), dtype=np.float32)
    if wrong == "text":
        cond = {"text": cond["text"][:, ::-1] + 0.1}
    if wrong == "time":
        t = t + 1.0
    network = network_of("all_frames" if wrong == "motion norm" else "per_frame")
    assert relative(apply(network, params, x, t, positions, 2, cond), expected) > 1e-3
