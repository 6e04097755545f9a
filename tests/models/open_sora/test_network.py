"""Open-Sora's transformers: what their output depends on, and that their cost is as claimed."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.dot_flops import dot_flops
from tests.models.full_size import at
from tests.models.open_sora.open_sora_reference import CONFIGS, NUM_TEXT, TEXT_DIM, make_inputs
from tpdiff_jax.models import OpenSora, OpenSoraConfig
from tpdiff_jax.models.open_sora.network import patch_sinusoids
from tpdiff_jax.types import Positions

FRAMES = np.array([0.0, 2.0, 4.0], np.float32)
FORMS = tuple(CONFIGS)


def small(form, **fields):
    return OpenSora(dataclasses.replace(CONFIGS[form], depth=1, **fields))


def randomised(network, seed=0):
    """Parameters with nothing left at zero."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: (0.15 * rng.standard_normal(a.shape)).astype(a.dtype), shapes)


@partial(jax.jit, static_argnames="network")
def apply(network, params, x, t, cond, positions):
    return network.apply(params, x, t, at(positions, x), (2, 1, 1), cond)


def run(network, x=None, cond=None, frames=FRAMES):
    inputs, t, prompt = make_inputs(len(frames))
    x, cond = inputs if x is None else x, prompt if cond is None else cond
    return np.asarray(apply(network, randomised(network), x, t, cond, frames))


@pytest.mark.parametrize("form", FORMS)
def test_a_fresh_network_predicts_zero_and_stacks_its_layers(form):
    network = OpenSora(CONFIGS[form])
    params = jax.jit(network.init)(jax.random.key(0))
    x, t, cond = make_inputs(3)
    output = apply(network, params, x, t, cond, FRAMES)
    assert output.shape == x.shape and output.dtype == jnp.float32
    np.testing.assert_array_equal(output, 0.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params["blocks"])} == {2}
    block = next(iter(params["blocks"].values()))
    kernel = block["feed_forward"]["inner"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.0  # layers are drawn one by one


@pytest.mark.parametrize("form", FORMS)
def test_fresh_frames_do_not_see_each_other_and_trained_ones_do(form):
    """As in Open-Sora, which starts from a network of pictures; the head is opened here."""
    network = small(form)
    fresh = jax.jit(network.init)(jax.random.key(0))
    fresh = {**fresh, "head": randomised(network)["head"]}
    x, t, cond = make_inputs(3)
    for params, is_seen in ((fresh, False), (randomised(network), True)):
        output = apply(network, params, x, t, cond, FRAMES)
        for i in range(3):
            moved = x.copy()
            moved[:, i] += 1.0
            change = np.abs(apply(network, params, moved, t, cond, FRAMES) - output)
            others = np.delete(change.max(axis=(0, 2, 3, 4)), i)
            assert change[:, i].max() > 1e-3
            assert (others.min() > 1e-4) if is_seen else (others.max() < 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_padding_is_not_seen_and_text_is(form):
    _, _, cond = make_inputs(3)
    output = run(small(form))
    for token, is_seen in ((1, True), (2, False), (4, False)):
        text = cond["text"].copy()
        text[1, token] += 3.0
        change = np.abs(run(small(form), cond=cond | {"text": text}) - output)
        assert change[0].max() == 0.0 and (change[1].max() > 1e-3) == is_seen
    other = run(small(form), cond=cond | {"pooled": np.zeros((2, 4))})
    np.testing.assert_array_equal(other, output)


@pytest.mark.parametrize("form", FORMS)
def test_a_text_that_is_all_padding_gives_numbers(form):
    _, _, cond = make_inputs(3)
    nothing = cond | {"text_mask": np.zeros((2, NUM_TEXT), bool)}
    whole = cond | {"text_mask": np.ones((2, NUM_TEXT), bool)}
    np.testing.assert_array_equal(run(small(form), cond=nothing), run(small(form), cond=whole))
    assert np.isfinite(run(small(form), cond=nothing)).all()


def test_samples_do_not_see_each_other():
    x, _, _ = make_inputs(3)
    moved = x.copy()
    moved[1] += 1.0
    for form in FORMS:
        np.testing.assert_allclose(run(small(form), x=moved)[0], run(small(form))[0], atol=1e-5)


def loss_and_grads(form, **fields):
    network = OpenSora(dataclasses.replace(CONFIGS[form], **fields))
    x, t, cond = make_inputs(2)

    def loss(params):
        return jnp.mean(network.apply(params, x, t, at(FRAMES[:2], x), (2, 1, 1), cond) ** 2)

    return jax.jit(jax.value_and_grad(loss))(randomised(network))


@pytest.mark.parametrize("form", FORMS)
def test_scanned_unrolled_and_rematerialised_layers_agree(form):
    value, grads = loss_and_grads(form)
    for fields in ({"scan_layers": False}, {"remat": "full"}):
        other_value, other_grads = loss_and_grads(form, **fields)
        np.testing.assert_allclose(other_value, value, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(other_grads), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * float(np.abs(b).max()))


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_stays_near_float32(form):
    output, half = run(small(form)), run(small(form, dtype="bfloat16"))
    assert half.dtype == np.float32
    error = np.sqrt(np.mean((half - output) ** 2) / np.mean(output**2))
    assert 0.0 < error < 0.06


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(2, 4, 6), (5, 4, 6), (2, 6, 2)])
def test_flops_are_exactly_those_of_the_matrix_products(form, shape):
    network = OpenSora(dataclasses.replace(CONFIGS[form], scan_layers=False))
    params = jax.eval_shape(network.init, jax.random.key(0))
    _, t, cond = make_inputs(1)
    x = np.ones((2, *shape, 4), np.float32)
    where = at(np.arange(shape[0], dtype=np.float32), x)
    jaxpr = jax.make_jaxpr(lambda p: network.apply(p, x, t, where, (1, 1, 1), cond))(params)
    assert dot_flops(jaxpr.jaxpr) == len(x) * network.flops(shape)


def test_one_patch_costs_what_the_layers_say():
    """One frame of one patch and five tokens of text, by hand."""
    d, text, hidden, width = 48.0, float(NUM_TEXT), 72.0, float(TEXT_DIM)
    attention = 8 * d**2 + 4 * d
    rest = (4 * d**2 + 4 * text * d**2 + 4 * text * d) + 4 * d * hidden
    ends = 2 * 16 * d + 2 * d * 32 + 2 * text * width * d + 2 * text * d**2
    scalar = 2 * 256 * d + 2 * d**2
    expected = {
        "stdit": 2 * (2 * attention + rest) + ends + scalar + 2 * d * 6 * d,
        "stdit3": 2 * 2 * (attention + rest) + ends + 2 * scalar + 2 * d * 6 * d,
    }
    for form, config in CONFIGS.items():
        assert OpenSora(config).flops((1, 2, 2)) == expected[form]


def test_tokens_are_the_patches():
    assert OpenSora(CONFIGS["stdit"]).num_tokens((3, 4, 6)) == 3 * 2 * 3
    assert OpenSora(OpenSoraConfig()).num_tokens((16, 32, 32)) == 4096


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2)])
def test_the_same_parameters_serve_other_sizes_and_coarse_stages(form, strides):
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 2, 4)).astype(np.float32)
    _, t, cond = make_inputs(3)
    half = (strides[1] - 1) / 2
    rows, columns = (np.float32(half + strides[1] * np.arange(n)) for n in (6, 2))
    network = small(form)
    where = Positions(FRAMES, rows, columns)
    output = network.apply(randomised(network), x, t, where, strides, cond)
    assert output.shape == x.shape and np.isfinite(output).all()
    assert np.abs(output - np.roll(output, 1, axis=2)).max() > 1e-2


@pytest.mark.parametrize(
    ("shape", "strides", "first", "last"),
    [
        # 16 x 16 patches over the range of 32: every second place, as with space_scale = 0.5
        ((1, 32, 32), (1, 1, 1), (0.0, 0.0), (30.0, 30.0)),
        ((1, 64, 64), (1, 1, 1), (0.0, 0.0), (31.0, 31.0)),
        # half of the rows and columns: in the middle of four patches
        ((1, 32, 32), (1, 2, 2), (0.5, 0.5), (30.5, 30.5)),
        # 240 x 432 pixels, by Open-Sora 1.2's: 20 / 15 and 20 / 27 of a patch over sqrt(hw) / 512
        ((1, 30, 54), (1, 1, 1), (0.0, 0.0), (14 * 20 / 15 / 0.62889, 26 * 20 / 27 / 0.62889)),
    ],
)
def test_patches_stand_where_open_sora_says(shape, strides, first, last):
    """Of the first and last patch: (row, column), read off the slowest sines."""
    config = OpenSoraConfig(hidden_size=64, num_heads=4)
    rows, columns = ((strides[1] * (np.arange(n) // 2) + (strides[1] - 1) / 2) for n in shape[1:])
    rows, columns = rows[::2], columns[::2]
    row_of, column_of = np.divmod(np.arange(len(rows) * len(columns)), len(columns))
    patches = Positions(np.zeros(1), rows[row_of], columns[column_of])
    table = np.asarray(patch_sinusoids(config, patches, shape, strides))
    slowest = 10_000.0 ** (-15 / 16)  # of 16 rates of each axis: sines of 0 to 15, then cosines
    for place, expected in ((0, first), (-1, last)):
        row, column = (
            np.arctan2(table[place, i + 15], table[place, i + 31]) / slowest for i in (32, 0)
        )
        np.testing.assert_allclose((row, column), expected, atol=2e-3)


@pytest.mark.parametrize("form", FORMS)
def test_the_places_of_frames_matter(form):
    network = small(form)
    output = run(network)
    assert np.abs(run(network, frames=2.0 * FRAMES) - output).max() > 1e-3
    shifted = np.abs(run(network, frames=FRAMES + 8.0) - output).max()
    assert shifted < 1e-4 if form == "stdit3" else shifted > 1e-3, "only distances are rotary"


def test_null_condition_keeps_everything_but_the_text():
    _, _, cond = make_inputs(3)
    for form in FORMS:
        null = small(form).null_cond(cond | {"caption": 1})
        assert null["caption"] == 1 and null["text"].dtype == cond["text"].dtype
        assert not np.any(null["text"]) and null["text"].shape == cond["text"].shape
        np.testing.assert_array_equal(null["text_mask"], cond["text_mask"])
        assert small(form).null_cond(None) is None


def test_inputs_that_do_not_fit_and_missing_conditions_are_refused():
    x, t, cond = make_inputs(3)

    def apply_to(x, cond, frames=FRAMES):
        small("stdit").apply({}, x, t, at(frames, x), (2, 1, 1), cond)

    with pytest.raises(ValueError, match=r"x_t must be \[b, f, h, w, 4\], got \(2, 3, 4, 6, 2\)"):
        apply_to(x[..., :2], cond)
    with pytest.raises(ValueError, match=r"positions must be those of the video's \(3, 4, 6\)"):
        apply_to(x, cond, FRAMES[:2])
    with pytest.raises(ValueError, match="model.patch_size=2 needs frames of a height that is a"):
        apply_to(x[:, :, :3], cond)
    with pytest.raises(ValueError, match=r"cond must have text, text_mask; missing \['text_mask"):
        apply_to(x, {"text": cond["text"]})
    with pytest.raises(ValueError, match=r"cond\['text'\] must be \(2, 5, 12\), got \(2, 4, 12\)"):
        apply_to(x, cond | {"text": cond["text"][:, :4]})


def test_a_kernel_that_these_devices_lack_is_refused():
    with pytest.raises(ValueError, match="model.attention_kernel='splash' needs a tpu"):
        OpenSora(dataclasses.replace(CONFIGS["stdit"], attention_kernel="splash"))
