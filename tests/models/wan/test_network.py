"""Wan's transformer: what its output depends on, and that its cost is what it claims."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.dot_flops import dot_flops
from tests.models.full_size import at
from tests.models.wan.wan_reference import CONFIG, NUM_TEXT, make_inputs
from tpdiff_jax.models import Wan, WanConfig
from tpdiff_jax.models.layers.attention import dot_product_attention
from tpdiff_jax.models.layers.block_stack import bind
from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.models.wan.blocks import WanBlock
from tpdiff_jax.types import Positions

POSITIONS = np.array([0.0, 2.0, 4.0], np.float32)


def small(**fields):
    return Wan(dataclasses.replace(CONFIG, depth=1, **fields))


def randomised(network, seed=0):
    """Parameters with the zero-initialised head opened."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: (0.2 * rng.standard_normal(a.shape)).astype(a.dtype), shapes)


@partial(jax.jit, static_argnames="network")
def apply(network, params, x, t, cond, positions):
    return network.apply(params, x, t, at(positions, x), (2, 1, 1), cond)


def run(network, x=None, cond=None, positions=POSITIONS):
    inputs, t, prompt = make_inputs(len(positions))
    x, cond = inputs if x is None else x, prompt if cond is None else cond
    return np.asarray(apply(network, randomised(network), x, t, cond, positions))


def test_a_fresh_network_predicts_zero_and_stacks_its_blocks():
    network = Wan(CONFIG)
    params = jax.jit(network.init)(jax.random.key(0))
    x, t, cond = make_inputs(3)
    output = apply(network, params, x, t, cond, POSITIONS)
    assert output.shape == x.shape and output.dtype == jnp.float32
    np.testing.assert_array_equal(output, 0.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params["blocks"])} == {2}
    kernel = params["blocks"]["feed_forward"]["inner"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.0  # layers are drawn one by one


def test_the_zeros_behind_a_prompt_are_seen_and_other_entries_are_not():
    _, _, cond = make_inputs(3)
    text = cond["text"].copy()
    text[1, -1] = 1.0
    change = np.abs(run(small(), cond={"text": text}) - run(small()))
    assert change[0].max() == 0.0 and change[1].min() > 0.0
    masked = cond | {"text_mask": np.zeros((2, NUM_TEXT), bool)}
    np.testing.assert_array_equal(run(small(), cond=masked), run(small()))


def test_every_frame_reaches_every_other():
    x, _, _ = make_inputs(3)
    for i in range(3):
        moved = x.copy()
        moved[:, i] += 1.0
        change = np.abs(run(small(), x=moved) - run(small())).max(axis=(0, 2, 3, 4))
        assert change.min() > 1e-3


def test_samples_do_not_see_each_other():
    x, _, _ = make_inputs(3)
    moved = x.copy()
    moved[1] += 1.0
    np.testing.assert_allclose(run(small(), x=moved)[0], run(small())[0], atol=1e-5)


def loss_and_grads(**fields):
    network, (x, t, cond) = Wan(dataclasses.replace(CONFIG, **fields)), make_inputs(2)

    def loss(params):
        return jnp.mean(network.apply(params, x, t, at(POSITIONS[:2], x), (2, 1, 1), cond) ** 2)

    return jax.jit(jax.value_and_grad(loss))(randomised(network))


def test_scanned_unrolled_and_rematerialised_blocks_agree():
    value, grads = loss_and_grads()
    for fields in ({"scan_layers": False}, {"remat": "full"}):
        other_value, other_grads = loss_and_grads(**fields)
        np.testing.assert_allclose(other_value, value, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(other_grads), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * float(np.abs(b).max()))


def test_bfloat16_stays_near_float32():
    output, half = run(small()), run(small(dtype="bfloat16"))
    assert half.dtype == np.float32
    error = np.sqrt(np.mean((half - output) ** 2) / np.mean(output**2))
    assert 0.0 < error < 0.05


def test_gated_sums_of_a_bfloat16_network_are_rounded_once():
    """A block whose attention is closed and whose feed-forward layer is a constant, by numpy."""
    rng = np.random.default_rng(0)
    config = small(dtype="bfloat16").config
    params = jax.tree.map(lambda leaf: leaf[0], randomised(small())["blocks"])
    for name in ("self_attention", "cross_attention"):
        params[name]["out"] = jax.tree.map(np.zeros_like, params[name]["out"])
    outer = params["feed_forward"]["outer"]
    outer["kernel"] = np.zeros_like(outer["kernel"])
    outer["bias"] = np.float32(jnp.asarray(rng.standard_normal(48), jnp.bfloat16))
    x = jnp.asarray(rng.standard_normal((1, 2, 3, 48)), jnp.bfloat16)
    of_time = rng.standard_normal((1, 6, 48)).astype(np.float32)
    output = bind(WanBlock, config, params)(
        x, jnp.zeros((1, NUM_TEXT, 48), jnp.bfloat16), of_time, None,
        (dot_product_attention, lambda q, k, v: jnp.zeros_like(q)), ONE_DEVICE,
    )  # fmt: skip
    gate = np.float64(params["modulation"]["table"][5] + of_time[0, 5])
    exact = np.float64(np.asarray(x, np.float32)) + gate * np.float64(outer["bias"])
    np.testing.assert_array_equal(output, jnp.asarray(exact.astype(np.float32), jnp.bfloat16))


@pytest.mark.parametrize("shape", [(2, 4, 6), (5, 4, 6), (2, 6, 2)])
def test_flops_are_exactly_those_of_the_matrix_products(shape):
    network = Wan(dataclasses.replace(CONFIG, scan_layers=False))
    params = jax.eval_shape(network.init, jax.random.key(0))
    _, t, cond = make_inputs(1)
    x = np.ones((2, *shape, 4), np.float32)
    where = at(np.arange(shape[0], dtype=np.float32), x)
    jaxpr = jax.make_jaxpr(lambda p: network.apply(p, x, t, where, (1, 1, 1), cond))(params)
    assert dot_flops(jaxpr.jaxpr) == len(x) * network.flops(shape)


def test_one_patch_costs_what_the_layers_say():
    """One frame of one patch and five tokens of text, by hand."""
    d, text, hidden = 48.0, 5.0, 64.0
    block = (8 * d**2 + 4 * d) + (4 * d**2 + 4 * text * d**2 + 4 * text * d) + 4 * d * hidden
    ends = 2 * 2 * 16 * d + 2 * text * 16 * d + 2 * text * d**2
    time = 2 * 32 * d + 2 * d**2 + 2 * d * 6 * d
    assert Wan(CONFIG).flops((1, 2, 2)) == 2 * block + ends + time


def test_tokens_are_the_patches():
    assert Wan(CONFIG).num_tokens((3, 4, 6)) == 3 * 2 * 3
    assert Wan(WanConfig()).num_tokens((21, 60, 104)) == 32_760


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2)])
def test_the_same_parameters_serve_other_sizes_and_coarse_stages(strides):
    """Taller frames, and positions of means of 2 x 2 pixels, in the network of `randomised`."""
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 2, 4)).astype(np.float32)
    _, t, cond = make_inputs(3)
    half = (strides[1] - 1) / 2
    rows, columns = (np.float32(half + strides[1] * np.arange(n)) for n in (6, 2))
    network = small()
    output = network.apply(
        randomised(network), x, t, Positions(POSITIONS, rows, columns), strides, cond
    )
    assert output.shape == x.shape and np.isfinite(output).all()
    assert np.abs(output - np.roll(output, 1, axis=2)).max() > 1e-2


@pytest.mark.parametrize("axis", ["frames", "rows", "columns"])
def test_distances_between_positions_matter_and_a_common_shift_does_not(axis):
    network, (x, t, cond) = small(), make_inputs(3)
    params, full = randomised(network), at(POSITIONS, x)

    @jax.jit
    def run_at(positions):
        return network.apply(params, x, t, positions, (2, 1, 1), cond)

    output, there = run_at(full), getattr(full, axis)
    np.testing.assert_allclose(run_at(full._replace(**{axis: there + 8.0})), output, atol=1e-4)
    assert np.abs(run_at(full._replace(**{axis: 2.0 * there})) - output).max() > 1e-3


def test_null_condition_is_text_of_zeros():
    _, _, cond = make_inputs(3)
    null = small().null_cond(cond | {"caption": 1})
    assert null["caption"] == 1 and null["text"].dtype == cond["text"].dtype
    assert not np.any(null["text"]) and null["text"].shape == cond["text"].shape
    assert small().null_cond(None) is None


def test_inputs_that_do_not_fit_and_missing_conditions_are_refused():
    x, t, cond = make_inputs(3)

    def apply_to(x, cond, frames=POSITIONS):
        small().apply({}, x, t, at(frames, x), (2, 1, 1), cond)

    with pytest.raises(ValueError, match=r"x_t must be \[b, f, h, w, 4\], got \(2, 3, 4, 6, 2\)"):
        apply_to(x[..., :2], cond)
    with pytest.raises(ValueError, match=r"positions must be those of the video's \(3, 4, 6\)"):
        apply_to(x, cond, POSITIONS[:2])
    with pytest.raises(ValueError, match="model.patch_size=2 needs frames of a height that is a"):
        apply_to(x[:, :, :3], cond)
    with pytest.raises(ValueError, match=r"cond must have text; missing \['text'\]"):
        apply_to(x, None)
    with pytest.raises(ValueError, match=r"cond\['text'\] must be \(2, 5, 16\), got \(2, 4, 16\)"):
        apply_to(x, {"text": cond["text"][:, :4]})


def test_stages_that_patches_cannot_fill_are_refused_by_name():
    Wan(WanConfig()).check_shape((21, 60, 104), (1, 1, 1))
    with pytest.raises(
        ValueError,
        match=r"model.patch_size=2 needs frames of a height that is a multiple of 2, the data's "
        r"have 15 in the stage of strides \(4, 4, 4\) of pyramid.strides",
    ):
        Wan(WanConfig()).check_shape((6, 15, 26), (4, 4, 4))


def test_a_kernel_that_these_devices_lack_is_refused():
    with pytest.raises(ValueError, match="model.attention_kernel='splash' needs a tpu"):
        Wan(dataclasses.replace(CONFIG, attention_kernel="splash"))
