"""The Flux transformer: what its output depends on, and that its cost is what it claims."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.dot_flops import dot_flops
from tests.models.flux.flux_reference import CONFIG, make_inputs
from tests.models.full_size import at
from tpdiff_jax.models import Flux, FluxConfig
from tpdiff_jax.types import Positions

POSITIONS = np.array([0.0, 2.0, 4.0], np.float32)


def small(**fields):
    return Flux(dataclasses.replace(CONFIG, num_double_blocks=1, num_single_blocks=1, **fields))


def randomised(network, seed=0):
    """Parameters with every zero-initialised gate and head opened."""
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
    network = Flux(CONFIG)
    params = jax.jit(network.init)(jax.random.key(0))
    x, t, cond = make_inputs(3)
    output = apply(network, params, x, t, cond, POSITIONS)
    assert output.shape == x.shape and output.dtype == jnp.float32
    np.testing.assert_array_equal(output, 0.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    for blocks in ("double_blocks", "single_blocks"):
        assert {leaf.shape[0] for leaf in jax.tree.leaves(params[blocks])} == {2}
    kernel = params["single_blocks"]["inner"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.0  # layers are drawn one by one


def test_what_stands_in_padding_never_reaches_the_video():
    _, _, cond = make_inputs(3)
    text = cond["text"].copy()
    text[1, 2:] += 10.0  # the padded tokens of the second prompt
    np.testing.assert_array_equal(run(small(), cond=cond | {"text": text}), run(small()))
    text[1, 1] += 1.0
    assert np.abs(run(small(), cond=cond | {"text": text}) - run(small()))[1].min() > 0.0


def test_a_mask_may_be_booleans_or_numbers():
    _, _, cond = make_inputs(3)
    as_bool = cond | {"text_mask": cond["text_mask"].astype(bool)}
    np.testing.assert_array_equal(run(small(), cond=as_bool), run(small()))


@pytest.mark.parametrize("is_causal", [False, True])
def test_later_frames_reach_earlier_ones_unless_causal(is_causal):
    network = small(is_causal=is_causal)
    x, _, _ = make_inputs(3)
    moved = x.copy()
    moved[:, 1] += 1.0
    change = np.abs(run(network, x=moved) - run(network)).max(axis=(0, 2, 3, 4))
    assert (change[0] == 0.0) == is_causal
    assert change[1] > 1e-2 and change[2] > 1e-2


def test_samples_do_not_see_each_other():
    x, _, _ = make_inputs(3)
    moved = x.copy()
    moved[1] += 1.0
    np.testing.assert_allclose(run(small(), x=moved)[0], run(small())[0], atol=1e-5)


def loss_and_grads(**fields):
    network, (x, t, cond) = Flux(dataclasses.replace(CONFIG, **fields)), make_inputs(2)

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


@pytest.mark.parametrize(
    ("shape", "is_causal"),
    [((2, 4, 6), False), ((5, 4, 6), False), ((5, 4, 6), True), ((2, 6, 2), True)],
)
def test_flops_are_exactly_those_of_the_matrix_products(shape, is_causal):
    network = Flux(dataclasses.replace(CONFIG, scan_layers=False, is_causal=is_causal))
    params = jax.eval_shape(network.init, jax.random.key(0))
    _, t, cond = make_inputs(1)
    x = np.ones((2, *shape, 3), np.float32)
    where = at(np.arange(shape[0], dtype=np.float32), x)
    jaxpr = jax.make_jaxpr(lambda p: network.apply(p, x, t, where, (1, 1, 1), cond))(params)
    assert dot_flops(jaxpr.jaxpr) == len(x) * network.flops(shape)


def test_tokens_are_those_of_the_text_and_the_patches():
    assert Flux(CONFIG).num_tokens((3, 4, 6)) == 5 + 3 * 2 * 3
    assert Flux(CONFIG).num_tokens((3, 2, 8)) == 5 + 3 * 1 * 4
    assert Flux(FluxConfig()).num_tokens((16, 48, 80)) == 128 + 16 * 960


def test_one_token_of_each_kind_costs_what_the_layers_say():
    """One frame of one patch and five tokens of text, by hand."""
    d, text, tokens, hidden = 32.0, 5.0, 6.0, 128.0
    mixing = 8 * tokens * d**2 + 4 * tokens**2 * d + 4 * tokens * d * hidden
    blocks = 2 * (mixing + 2 * d * 12 * d) + 2 * (mixing + 2 * d * 3 * d)
    ends = 2 * 2 * 12 * d + 2 * text * 16 * d + 2 * d * 2 * d
    vectors = 2 * 256 * d + 2 * d**2 + 2 * 12 * d + 2 * d**2
    assert Flux(CONFIG).flops((1, 2, 2)) == blocks + ends + vectors


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2)])
def test_the_same_parameters_serve_other_sizes_and_coarse_stages(strides):
    """Taller frames, and positions of means of 2 x 2 pixels, in the network of `randomised`."""
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 2, 3)).astype(np.float32)
    _, t, cond = make_inputs(3)
    half = (strides[1] - 1) / 2
    rows, columns = (np.float32(half + strides[1] * np.arange(n)) for n in (6, 2))
    network = small()
    output = network.apply(
        randomised(network), x, t, Positions(POSITIONS, rows, columns), strides, cond
    )
    assert output.shape == x.shape and np.isfinite(output).all()
    assert np.abs(output - np.roll(output, 1, axis=2)).max() > 1e-2


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_positions_of_rows_and_columns_matter(axis):
    network, (x, t, cond) = small(), make_inputs(3)
    params, full = randomised(network), at(POSITIONS, x)

    @jax.jit
    def run_at(positions):
        return network.apply(params, x, t, positions, (2, 1, 1), cond)

    output, there = run_at(full), getattr(full, axis)
    shifted = run_at(full._replace(**{axis: there + 8.0}))
    # the text stands still at position 0 and is not rotated: a shift is seen through it
    assert np.abs(shifted - output).max() > 1e-3
    assert np.abs(run_at(full._replace(**{axis: 2.0 * there})) - output).max() > 1e-3


def test_null_condition_shows_no_text():
    _, _, cond = make_inputs(3)
    null = small().null_cond(cond)
    assert {name: leaf.dtype for name, leaf in null.items()} == {
        name: leaf.dtype for name, leaf in cond.items()
    }
    assert all(not np.any(leaf) for leaf in null.values())
    assert small().null_cond(None) is None


def test_without_visible_text_the_output_is_finite():
    _, _, cond = make_inputs(3)
    assert np.isfinite(run(small(), cond=small().null_cond(cond))).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": np.zeros((2, 4, 16))}, r"cond\['text'\] must be \(2, 5, 16\), got \(2, 4, 16\)"),
        ({"text_mask": np.zeros((2, 4))}, r"cond\['text_mask'\] must be \(2, 5\)"),
        ({"pooled": np.zeros((1, 12))}, r"cond\['pooled'\] must be \(2, 12\), got \(1, 12\)"),
    ],
)
def test_conditions_of_other_shapes_are_refused(change, message):
    x, t, cond = make_inputs(3)
    with pytest.raises(ValueError, match=message):
        small().apply({}, x, t, at(POSITIONS, x), (2, 1, 1), cond | change)


def test_inputs_that_do_not_fit_and_missing_conditions_are_refused():
    x, t, cond = make_inputs(3)

    def apply_to(x, cond, frames=POSITIONS):
        small().apply({}, x, t, at(frames, x), (2, 1, 1), cond)

    with pytest.raises(ValueError, match=r"x_t must be \[b, f, h, w, 3\], got \(2, 3, 4, 6, 2\)"):
        apply_to(x[..., :2], cond)
    with pytest.raises(ValueError, match=r"positions must be those of the video's \(3, 4, 6\)"):
        apply_to(x, cond, POSITIONS[:2])
    with pytest.raises(ValueError, match="model.patch_size=2 needs frames of a height that is a"):
        apply_to(x[:, :, :3], cond)
    with pytest.raises(ValueError, match=r"cond must have text, text_mask, pooled; missing"):
        apply_to(x, None)
    with pytest.raises(ValueError, match=r"missing \['pooled'\]"):
        apply_to(x, {k: cond[k] for k in ("text", "text_mask")})


def test_stages_that_patches_cannot_fill_are_refused_by_name():
    Flux(FluxConfig()).check_shape((16, 12, 20), (1, 4, 4))
    with pytest.raises(
        ValueError,
        match=r"model.patch_size=2 needs frames of a width that is a multiple of 2, the data's "
        r"have 5 in the stage of strides \(4, 4, 4\) of pyramid.strides",
    ):
        Flux(FluxConfig()).check_shape((16, 12, 5), (4, 4, 4))
