"""ModelScope's network: what its output depends on, what it refuses, and what it costs."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.dot_flops import dot_flops
from tests.models.full_size import at
from tests.models.modelscope.modelscope_reference import CONFIG, make_inputs
from tpdiff_jax.models import ModelScope, ModelScopeConfig
from tpdiff_jax.models.unet.axes import UNET_PARAM_AXES
from tpdiff_jax.weights.key_table import flatten_params

NETWORK = ModelScope(CONFIG)
POSITIONS = np.array([0.0, 2.0, 4.0], np.float32)


def randomised(network, seed=0):
    """Parameters with every zero-initialised end opened."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: (0.2 * rng.standard_normal(a.shape)).astype(a.dtype), shapes)


@partial(jax.jit, static_argnames="network")
def apply(network, params, x, t, cond):
    return network.apply(params, x, t, at(POSITIONS, x), (2, 1, 1), cond)


def run(network=NETWORK, x=None, cond=None):
    inputs, t, prompt = make_inputs(3)
    return np.asarray(
        apply(
            network,
            randomised(network),
            inputs if x is None else x,
            t,
            prompt if cond is None else cond,
        )
    )


def test_a_fresh_network_predicts_zero():
    params = NETWORK.init(jax.random.key(0))
    x, t, cond = make_inputs(3)
    output = apply(NETWORK, params, x, t, cond)
    assert output.shape == x.shape and output.dtype == jnp.float32
    np.testing.assert_array_equal(output, 0.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    last = params["middle"]["end"]["convolutions"]
    assert [np.any(last[f"step_{i}"]["conv"]["kernel"]) for i in (1, 2, 3, 4)] == [1, 1, 1, 0]


def test_samples_do_not_see_each_other_and_the_text_is_seen():
    x, _, cond = make_inputs(3)
    moved = x.copy()
    moved[1] += 1.0
    np.testing.assert_allclose(run(x=moved)[0], run()[0], atol=1e-4)
    assert np.abs(run(cond={"text": cond["text"] + 1.0}) - run()).min(axis=(1, 2, 3)).max() > 0.0


def test_bfloat16_stays_near_float32():
    output, half = run(), run(ModelScope(dataclasses.replace(CONFIG, dtype="bfloat16")))
    assert half.dtype == np.float32
    error = np.sqrt(np.mean((half - output) ** 2) / np.mean(output**2))
    assert 0.0 < error < 0.05


@pytest.mark.slow
def test_rematerialised_layers_agree():
    """One level has layers of every kind but those that halve and double."""
    x, t, cond = make_inputs(3)

    def grads(remat):
        network = ModelScope(dataclasses.replace(CONFIG, level_channels=(8,), remat=remat))

        def loss(params):
            return jnp.mean(network.apply(params, x, t, at(POSITIONS, x), (2, 1, 1), cond) ** 2)

        return jax.jit(jax.grad(loss))(randomised(network))

    for a, b in zip(jax.tree.leaves(grads("full")), jax.tree.leaves(grads("none")), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * float(np.abs(b).max()))


@pytest.mark.parametrize(
    "fields", [{"level_channels": (8, 16, 16)}, {"level_depth": 2}, {"head_dim": 2}]
)
def test_flops_are_exactly_those_of_products_and_convolutions(fields):
    network = ModelScope(dataclasses.replace(CONFIG, **fields))
    params = jax.eval_shape(network.init, jax.random.key(0))

    def traced(x, t, cond):
        where = at(np.arange(x.shape[1], dtype=np.float32), x)
        return jax.make_jaxpr(lambda p: network.apply(p, x, t, where, (2, 1, 1), cond))(params)

    for num_frames, height, width in ((3, 4, 8), (1, 8, 4)):
        x, t, cond = make_inputs(num_frames, height=height, width=width)
        expected = 2 * network.flops((num_frames, height, width))  # a batch of two
        assert dot_flops(traced(x, t, cond).jaxpr) == expected


def test_published_size():
    """1,411.2 million parameters; the text's keys and values are made once for all frames."""
    network = ModelScope(ModelScopeConfig())
    leaves = flatten_params(jax.eval_shape(network.init, jax.random.key(0)))
    assert round(sum(leaf.size for leaf in leaves.values()) / 1e6, 1) == 1411.2
    assert network.num_tokens((16, 32, 32)) == 16 * 1024
    one, sixteen = network.flops((1, 32, 32)), network.flops((16, 32, 32))
    assert 15.5 < sixteen / one < 16.0


def test_every_parameter_of_the_full_size_network_has_axes_and_no_row_is_idle():
    leaves = flatten_params(jax.eval_shape(ModelScope(ModelScopeConfig()).init, jax.random.key(0)))
    used = set()
    for path, leaf in leaves.items():
        pattern, axes = next(row for row in UNET_PARAM_AXES if re.fullmatch(row[0], path))
        used.add(pattern)
        assert len(axes) in (0, leaf.ndim), path
        assert ("width" in axes) == path.endswith("kernel"), path
    assert used == {pattern for pattern, _ in UNET_PARAM_AXES}


def test_heads_of_every_level_are_named_for_the_mesh():
    """Of 64 channels: 5, 10, 20, 20, and 8 at the entrance; a device cannot have half a head."""
    sizes = ModelScope(ModelScopeConfig()).axis_sizes((16, 32, 32))
    assert [size for axis, size in sizes.values() if axis == "heads"] == [8, 5, 10, 20, 20]
    assert [size for axis, size in sizes.values() if axis == "tokens"] == [16]


def test_null_condition_is_text_of_zeros():
    _, _, cond = make_inputs(3)
    assert not np.any(NETWORK.null_cond(cond)["text"])
    assert NETWORK.null_cond(None) is None


@pytest.mark.parametrize("strides", [(2, 1, 1), (4, 2, 2), (3, 1, 1)])
def test_a_stage_with_fewer_frames_a_second_is_refused_unless_asked_for(strides):
    shape = (16 // strides[0], 32 // strides[1], 32 // strides[2])
    with pytest.raises(
        ValueError,
        match=rf"model.implicit_rate=False refuses the stage of strides {re.escape(str(strides))} "
        rf"of pyramid.strides: it keeps one frame in {strides[0]}, and nothing tells",
    ):
        ModelScope(ModelScopeConfig()).check_shape(shape, strides)
    ModelScope(ModelScopeConfig(implicit_rate=True)).check_shape(shape, strides)


@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 4, 1)])
def test_small_frames_are_taken_as_they_are(strides):
    shape = (16, 32 // strides[1], 32 // strides[2])
    ModelScope(ModelScopeConfig()).check_shape(shape, strides)


def test_wrong_inputs_are_refused():
    x, t, cond = make_inputs(3)

    def apply_to(x, cond, frames=POSITIONS, network=NETWORK):
        network.apply({}, x, t, at(frames, x), (2, 1, 1), cond)

    with pytest.raises(ValueError, match=r"x_t must be \[b, f, h, w, 3\], got \(2, 3, 4, 6, 2\)"):
        apply_to(x[..., :2], cond)
    with pytest.raises(ValueError, match=r"positions must be those of the video's \(3, 4, 6\)"):
        apply_to(x, cond, POSITIONS[:2])
    with pytest.raises(ValueError, match=r"model.level_channels=\(8, 16\) needs frames of a he"):
        apply_to(x[:, :, :3], cond)
    with pytest.raises(ValueError, match=r"cond must have 'text'"):
        apply_to(x, None)
    with pytest.raises(ValueError, match=r"cond\['text'\] must be \(2, 5, 10\), got \(2, 4, 10\)"):
        apply_to(x, {"text": cond["text"][:, 1:]})
    with pytest.raises(ValueError, match=r"model.implicit_rate=False refuses the stage"):
        apply_to(x, cond, network=ModelScope(dataclasses.replace(CONFIG, implicit_rate=False)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_dim": 0}, "model.head_dim is 0; allowed: above 0"),
        ({"head_dim": 48}, r"model.level_channels must be multiples of model.head_dim=48, got \(3"),
        ({"num_groups": 48}, "model.level_channels must be multiples of model.num_groups=48"),
        ({"level_channels": ()}, "model.level_channels must be multiples of"),
        ({"level_depth": 0}, "model.level_depth is 0; allowed: above 0"),
        ({"dtype": "float16"}, "model.dtype is 'float16'; allowed: "),
        ({"remat": "some"}, "model.remat is 'some'; allowed: "),
    ],
)
def test_impossible_shapes_are_refused_by_field(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelScopeConfig(**fields)
