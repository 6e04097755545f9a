"""The AnimateDiff network: what its output depends on, and that its cost is what it claims."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.animatediff.animatediff_reference import CONFIG, make_inputs
from tests.models.dot_flops import dot_flops
from tests.models.full_size import at
from tpdiff_jax.models import AnimateDiff, AnimateDiffConfig
from tpdiff_jax.models.animatediff.positions import embed_positions
from tpdiff_jax.models.unet.axes import UNET_PARAM_AXES
from tpdiff_jax.types import Positions
from tpdiff_jax.weights.key_table import flatten_params

POSITIONS = np.array([0.0, 2.0, 4.0], np.float32)
NETWORK = AnimateDiff(CONFIG)


def randomised(network, seed=0):
    """Parameters with every zero-initialised end opened."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: (0.2 * rng.standard_normal(a.shape)).astype(a.dtype), shapes)


@partial(jax.jit, static_argnames="network")
def apply(network, params, x, t, cond, positions):
    return network.apply(params, x, t, at(positions, x), (2, 1, 1), cond)


def run(network=NETWORK, x=None, cond=None, positions=POSITIONS):
    inputs, t, prompt = make_inputs(len(positions))
    x, cond = inputs if x is None else x, prompt if cond is None else cond
    return np.asarray(apply(network, randomised(network), x, t, cond, positions))


def test_a_fresh_network_predicts_zero():
    params = NETWORK.init(jax.random.key(0))
    x, t, cond = make_inputs(3)
    output = apply(NETWORK, params, x, t, cond, POSITIONS)
    assert output.shape == x.shape and output.dtype == jnp.float32
    np.testing.assert_array_equal(output, 0.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    kernels = (params["down"][f"{i}_layer_0"]["residual"]["conv_1"]["kernel"] for i in range(2))
    assert all(np.std(kernel) > 0.0 for kernel in kernels)


def test_frames_meet_in_the_motion_modules_only():
    x, t, cond = make_inputs(3)
    moved = x.copy()
    moved[:, 1] += 1.0
    assert np.abs(run(x=moved) - run())[:, 0].max() > 1e-3
    params = randomised(NETWORK)
    for section in ("down", "middle", "up"):
        for layer in params[section].values():
            if "motion" in layer:
                layer["motion"]["project_out"] = jax.tree.map(
                    np.zeros_like, layer["motion"]["project_out"]
                )
    alone = apply(NETWORK, params, x, t, cond, POSITIONS)
    other = apply(NETWORK, params, moved, t, cond, POSITIONS)
    np.testing.assert_allclose(alone[:, 0], other[:, 0], atol=1e-5)


def test_samples_do_not_see_each_other_and_the_text_is_seen():
    x, _, cond = make_inputs(3)
    moved = x.copy()
    moved[1] += 1.0
    np.testing.assert_allclose(run(x=moved)[0], run()[0], atol=1e-4)
    assert np.abs(run(cond={"text": cond["text"] + 1.0}) - run()).min(axis=(1, 2, 3)).max() > 0.0


def test_positions_matter_and_need_not_be_whole():
    between = run(positions=POSITIONS + 0.5)
    assert 1e-3 < np.abs(between - run()).max()
    expected = [np.sin(1.5), np.cos(1.5), np.sin(0.015), np.cos(0.015)]
    np.testing.assert_allclose(embed_positions(np.array([1.5]), 4)[0], expected, rtol=1e-5)


@pytest.mark.slow
def test_rematerialised_layers_agree():
    """One level has layers of every kind but those that halve and double."""
    x, t, cond = make_inputs(2)

    def loss_and_grads(remat):
        network = AnimateDiff(dataclasses.replace(CONFIG, level_channels=(8,), remat=remat))

        def loss(params):
            return jnp.mean(network.apply(params, x, t, at(POSITIONS[:2], x), (2, 1, 1), cond) ** 2)

        return jax.jit(jax.value_and_grad(loss))(randomised(network))

    (value, grads), (other_value, other_grads) = loss_and_grads("none"), loss_and_grads("full")
    np.testing.assert_allclose(other_value, value, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(other_grads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * float(np.abs(b).max()))


def test_bfloat16_stays_near_float32():
    output, half = run(), run(AnimateDiff(dataclasses.replace(CONFIG, dtype="bfloat16")))
    assert half.dtype == np.float32
    error = np.sqrt(np.mean((half - output) ** 2) / np.mean(output**2))
    assert 0.0 < error < 0.05


@pytest.mark.parametrize(
    "fields",
    [{"motion_form": "v2", "level_channels": (8, 16, 16)}, {"motion_form": "v3", "level_depth": 2}],
)
def test_flops_are_exactly_those_of_products_and_convolutions(fields):
    network = AnimateDiff(dataclasses.replace(CONFIG, **fields))
    params = jax.eval_shape(network.init, jax.random.key(0))

    def traced(x, t, cond):
        where = at(POSITIONS, x)
        return jax.make_jaxpr(lambda p: network.apply(p, x, t, where, (2, 1, 1), cond))(params)

    for height, width in ((4, 8), (8, 4), (4, 4)):
        inputs = make_inputs(3, network.config, height=height, width=width)
        expected = 2 * network.flops((3, height, width))  # a batch of two
        assert dot_flops(traced(*inputs).jaxpr) == expected


def test_published_sizes():
    """453.2 million in motion modules of v2, 859.52 million elsewhere; FLOPs follow the frames."""
    network = AnimateDiff(AnimateDiffConfig(motion_form="v2"))
    leaves = flatten_params(jax.eval_shape(network.init, jax.random.key(0)))
    motion = sum(leaf.size for path, leaf in leaves.items() if "/motion/" in path)
    assert round((sum(leaf.size for leaf in leaves.values()) - motion) / 1e6, 2) == 859.52
    assert round(motion / 1e6, 1) == 453.2
    assert network.num_tokens((16, 32, 32)) == 16 * 1024
    assert network.num_tokens((16, 32, 16)) == 16 * 512
    assert 0.499 < network.flops((8, 32, 32)) / network.flops((16, 32, 32)) < 0.5


def test_every_parameter_of_the_full_size_network_has_axes_and_no_row_is_idle():
    leaves = flatten_params(
        jax.eval_shape(AnimateDiff(AnimateDiffConfig()).init, jax.random.key(0))
    )
    used = set()
    for path, leaf in leaves.items():
        pattern, axes = next(row for row in UNET_PARAM_AXES if re.fullmatch(row[0], path))
        used.add(pattern)
        assert len(axes) in (0, leaf.ndim), path
        assert ("width" in axes) == path.endswith("kernel"), path
    assert used == {pattern for pattern, _ in UNET_PARAM_AXES}
    whole = sum(leaf.size for path, leaf in leaves.items() if not path.endswith("kernel"))
    assert whole < 2e-3 * sum(leaf.size for leaf in leaves.values())


def test_null_condition_is_text_of_zeros():
    _, _, cond = make_inputs(3)
    null = NETWORK.null_cond(cond | {"label": np.ones(2)})
    assert not np.any(null["text"]) and null["text"].dtype == cond["text"].dtype
    np.testing.assert_array_equal(null["label"], np.ones(2))
    assert NETWORK.null_cond(None) is None


def test_wrong_inputs_are_refused():
    x, t, cond = make_inputs(3)

    def apply_to(x, cond, frames=POSITIONS, strides=(2, 1, 1)):
        NETWORK.apply({}, x, t, at(frames, x), strides, cond)

    with pytest.raises(ValueError, match=r"x_t must be \[b, f, h, w, 3\], got \(2, 3, 4, 6, 2\)"):
        apply_to(x[..., :2], cond)
    with pytest.raises(ValueError, match=r"positions must be those of the video's \(3, 4, 6\)"):
        apply_to(x, cond, POSITIONS[:2])
    with pytest.raises(
        ValueError, match=r"model.level_channels=\(8, 16\) needs frames of a height"
    ):
        apply_to(x[:, :, :3], cond)
    with pytest.raises(ValueError, match=r"cond must have 'text'"):
        apply_to(x, None)
    with pytest.raises(ValueError, match=r"cond\['text'\] must be \(2, 5, 10\), got \(2, 4, 10\)"):
        apply_to(x, {"text": cond["text"][:, 1:]})
    with pytest.raises(ValueError, match=r"'v2' knows the positions 0 to 31, the .* is at 32"):
        apply_to(x, cond, strides=(16, 1, 1))
    with pytest.raises(ValueError, match=r"'v2' knows the positions 0 to 31, the .* is at 31.5"):
        apply_to(x, cond, np.array([0.0, 16.0, 31.5]))


def test_a_spatial_stage_is_taken_where_the_levels_can_halve_it_and_refused_where_not():
    """Four levels halve three times: sides of 8 are fine, sides of 4 are not."""
    network = AnimateDiff(AnimateDiffConfig())
    for shape, strides in (((16, 32, 32), (1, 1, 1)), ((4, 8, 8), (4, 4, 4))):
        network.check_shape(shape, strides)
    with pytest.raises(
        ValueError,
        match=r"model.level_channels=\(320, 640, 1280, 1280\) needs frames of a height that is a "
        r"multiple of 8, the data's have 4 in the stage of strides \(1, 8, 8\) of pyramid.strides",
    ):
        network.check_shape((16, 4, 4), (1, 8, 8))
    with pytest.raises(ValueError, match=r"a width that is a multiple of 8, the data's have 36$"):
        network.check_shape((16, 32, 36), (1, 1, 1))
    with pytest.raises(ValueError, match=r"model.motion_form='v3' knows the positions 0 to 31"):
        network.check_shape((9, 32, 32), (4, 1, 1))


@pytest.mark.parametrize(("height", "width", "stride"), [(6, 4, 1), (2, 4, 2)])
def test_the_same_parameters_serve_other_sizes_and_an_accepted_coarse_stage(height, width, stride):
    x, t, cond = make_inputs(3, height=height, width=width)
    rows, columns = (np.float32((stride - 1) / 2 + stride * np.arange(n)) for n in (height, width))
    where = Positions(POSITIONS, rows, columns)
    run = jax.jit(lambda p: NETWORK.apply(p, x, t, where, (2, stride, stride), cond))
    output = run(randomised(NETWORK))
    assert output.shape == x.shape and np.isfinite(output).all()
    assert np.abs(output).max() > 1e-2


def test_devices_must_divide_heads_and_the_pixels_of_the_last_level():
    network = AnimateDiff(AnimateDiffConfig())
    assert dict(network.axis_sizes((16, 32, 40)).values()) == {"heads": 8, "tokens": 4 * 5}
    assert dict(network.axis_sizes((4, 8, 8)).values()) == {"heads": 8, "tokens": 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "float16"}, r"model.dtype is 'float16'; allowed: .*bfloat16"),
        ({"remat": "yes"}, r"model.remat is 'yes'; allowed: .*full"),
        ({"motion_form": "v4"}, r"model.motion_form is 'v4'; allowed: .*v3"),
        ({"motion_norm": "none"}, r"model.motion_norm is 'none'; allowed: .*per_frame"),
        ({"attention_kernel": "flash"}, r"model.attention_kernel is 'flash'; allowed: "),
        ({"num_heads": 3}, r"model.level_channels must be multiples of model.num_heads=3"),
        ({"level_channels": (32, 40)}, r"multiples of model.num_groups=32, got \(32, 40\)"),
        ({"level_channels": ()}, r"model.level_channels must be multiples of"),
        ({"text_dim": 0}, r"model.text_dim is 0; allowed: above 0"),
        ({"level_depth": 0}, r"model.level_depth is 0; allowed: above 0"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AnimateDiffConfig(**fields)


def test_a_kernel_that_the_devices_lack_is_refused():
    with pytest.raises(ValueError, match="model.attention_kernel='splash' needs a tpu"):
        AnimateDiff(AnimateDiffConfig(attention_kernel="splash"))
