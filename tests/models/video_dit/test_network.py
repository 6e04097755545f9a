"""The video DiT: what its output depends on, and that its cost and layouts are what they claim."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.dot_flops import dot_flops
from tests.models.full_size import at
from tpdiff_jax.models import VideoDiT, VideoDiTConfig
from tpdiff_jax.models.layers.embeddings import scalar_embedding_flops
from tpdiff_jax.models.video_dit.network import position_features
from tpdiff_jax.types import Positions

KINDS = {
    "factorised": {},
    "joint": {"attention": "joint"},
    "levels": {"level_channels": (8, 12)},
}
ATTENTIONS = ("factorised", "joint")
POSITIONS = np.array([0.0, 2.0, 4.0], np.float32)
COND = {"label": np.array([[3], [7]], np.int32)}
T = jnp.array([100.0, 900.0])


def small(**fields):
    sizes = {"channels": 2, "patch_size": 4, "hidden_size": 24, "depth": 2, "num_heads": 2}
    return VideoDiT(VideoDiTConfig(**(sizes | {"mlp_ratio": 2.0} | fields)))


def randomised(network, seed=0):
    """Parameters with every zero-initialised gate and head opened."""
    leaves, tree = jax.tree.flatten(network.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [a + 0.2 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def noise(num_frames=3, height=8, width=12, seed=0):
    shape = (2, num_frames, height, width, 2)
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@partial(jax.jit, static_argnames=("network", "strides"))
def apply(network, params, x, t, positions, strides, cond):
    return network.apply(params, x, t, positions, strides, cond)


def run(network, params, x=None, t=T, positions=POSITIONS, strides=(2, 1, 1), cond=COND):
    """Apply the network, compiled once per shape; positions are traced.

    Positions of frames alone stand for those of a stage of full-size frames.
    """
    if not isinstance(positions, Positions):
        x = noise(len(positions)) if x is None else x
        positions = at(positions, x)
    return apply(network, params, x, t, positions, strides, cond)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_network_predicts_zero(kind):
    network = small(**KINDS[kind])
    output = run(network, network.init(jax.random.key(0)))
    assert output.shape == (2, 3, 8, 12, 2)
    assert output.dtype == jnp.float32
    np.testing.assert_array_equal(output, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_nested_dicts_of_float32_with_stacked_blocks(kind):
    params = small(**KINDS[kind], depth=3).init(jax.random.key(0))

    def check(tree):
        assert type(tree) is dict
        for value in tree.values():
            if isinstance(value, dict):
                check(value)
            else:
                assert isinstance(value, jax.Array)
                assert value.dtype == jnp.float32

    check(params)
    levels = ["down_0", "up_0", "down_1", "up_1"] if kind == "levels" else []
    assert set(params) == {"stem", "blocks", "head", *levels, *(["folds"] if levels else [])}
    assert all(leaf.shape[0] == 1 for name in levels for leaf in jax.tree.leaves(params[name]))
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(params["blocks"]))
    kernels = params["blocks"]["feed_forward"]["inner"]["kernel"]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def test_init_is_a_function_of_the_key():
    network = small()
    same = [network.init(jax.random.key(1)) for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, *same)
    other = network.init(jax.random.key(2))
    kernels = [params["stem"]["patch"]["kernel"] for params in (other, same[0])]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_frames_with_their_positions_permutes_the_output(kind):
    network = small(**KINDS[kind])
    params, x, order = randomised(network), noise(4), np.array([2, 0, 3, 1])
    positions = np.array([0.0, 4.0, 8.0, 12.0], np.float32)
    expected = run(network, params, x, positions=positions)[:, order]
    result = run(network, params, x[:, order], positions=positions[order])
    np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_differences_of_frame_positions_matter_and_they_do(kind):
    network = small(**KINDS[kind])
    params = randomised(network)
    output = run(network, params)
    np.testing.assert_allclose(run(network, params, positions=POSITIONS + 9.0), output, atol=5e-5)
    naive = run(network, params, positions=np.arange(3, dtype=np.float32))
    assert np.abs(naive - output).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_traced_frame_positions_give_the_static_ones_output(kind):
    network = small(**KINDS[kind])
    params = randomised(network)
    where = at(POSITIONS, noise())
    static = jax.jit(lambda x: network.apply(params, x, T, where, (2, 1, 1), COND))(noise())
    np.testing.assert_allclose(run(network, params), static, atol=5e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_time_strides_label_and_every_frame_reach_every_frame(kind):
    network = small(**KINDS[kind])
    params, x = randomised(network), noise()
    output = run(network, params, x)
    others = {
        "time": run(network, params, x, t=T + 50.0),
        "stride over time": run(network, params, x, strides=(4, 1, 1)),
        "stride over height": run(network, params, x, strides=(2, 2, 1)),
        "stride over width": run(network, params, x, strides=(2, 1, 2)),
        "label": run(network, params, x, cond={"label": np.array([[4], [8]])}),
        "no label": run(network, params, x, cond=network.null_cond(COND)),
        "no condition": run(network, params, x, cond=None),
        "last frame": run(network, params, x.at[:, -1].add(1.0)),
    }
    for name, other in others.items():
        change = np.abs(other - output).max(axis=(0, 2, 3, 4))
        assert change.min() > 1e-4, name


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_see_each_other(kind):
    network = small(**KINDS[kind])
    params, x = randomised(network), noise()
    changed = run(network, params, x.at[1].add(1.0))
    np.testing.assert_allclose(changed[0], run(network, params, x)[0], atol=1e-5)


def test_space_attention_mixes_patches_and_time_attention_mixes_frames():
    network = small(depth=1)
    params, x = randomised(network), noise()
    without_space = jax.tree.map(jnp.copy, params)
    gates = slice(2 * 24, 3 * 24)
    modulation = without_space["blocks"]["modulation"]
    modulation["kernel"] = modulation["kernel"].at[:, :, gates].set(0.0)
    modulation["bias"] = modulation["bias"].at[:, gates].set(0.0)
    moved = x.at[:, 0, :4, :4].add(1.0)
    change = np.abs(run(network, without_space, moved) - run(network, without_space, x))
    assert change[:, 1, :4, :4].max() > 1e-4
    np.testing.assert_array_equal(change[:, :, 4:], 0.0)
    full_change = np.abs(run(network, params, moved) - run(network, params, x))
    assert full_change[:, 1, 4:].max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_scanned_and_unrolled_blocks_and_rematerialised_ones_agree(kind):
    reference = small(**KINDS[kind])
    params, x = randomised(reference), noise()

    def loss(network):
        return jax.jit(jax.value_and_grad(lambda p: jnp.mean(run(network, p, x) ** 2)))

    value, grads = loss(reference)(params)
    for fields in (
        {"scan_layers": False},
        {"remat": "dots"},
        {"remat": "full"},
        {"remat": "offload"},
    ):
        other_value, other_grads = loss(small(**KINDS[kind], **fields))(params)
        np.testing.assert_allclose(other_value, value, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(other_grads), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, float(np.abs(b).max())))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_stays_near_float32_and_every_parameter_gets_a_gradient(kind):
    """Of a stage that is smaller; one that is only slower has no use for one embedding."""
    network, half = small(**KINDS[kind]), small(**KINDS[kind], dtype="bfloat16")
    params = randomised(network)
    output, output_half = (run(one, params, strides=(2, 2, 2)) for one in (network, half))
    assert output_half.dtype == jnp.float32
    error = np.sqrt(np.mean((output_half - output) ** 2) / np.mean(output**2))
    assert 0.0 < error < 0.03
    for one in (network, half):
        assert parameters_without_gradient(one, params, (2, 2, 2)) == set()
        assert parameters_without_gradient(one, params, (2, 1, 1)) == {
            f"['stem']['stride']['space']['{layer}']['{name}']"
            for layer in ("inner", "outer")
            for name in ("kernel", "bias")
        }


def parameters_without_gradient(network, params, strides):
    """Paths whose gradient is zero at that stage; all gradients are finite float32."""
    grad = jax.jit(jax.grad(lambda p: jnp.mean(run(network, p, strides=strides) ** 2)))
    missing = set()
    for path, leaf in jax.tree.leaves_with_path(grad(params)):
        name = jax.tree_util.keystr(path)
        assert leaf.dtype == jnp.float32, name
        assert np.isfinite(leaf).all(), name
        if not np.any(leaf):
            missing.add(name)
    return missing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 8, 12), (16, 8, 12), (4, 4, 8)])
@pytest.mark.parametrize("strides, embeddings", [((2, 1, 1), 1), ((1, 2, 2), 2)])
def test_flops_are_exactly_those_of_the_matrix_products(kind, shape, strides, embeddings):
    """Strides over space are embedded beside those over time where there are any."""
    network = small(**KINDS[kind], scan_layers=False)
    params, x = network.init(jax.random.key(0)), noise(*shape)
    where = at(np.arange(shape[0], dtype=np.float32), x)
    jaxpr = jax.make_jaxpr(lambda x: network.apply(params, x, T, where, strides, COND))(x)
    of_strides = embeddings * scalar_embedding_flops(24)  # once a batch, not once a video
    assert dot_flops(jaxpr.jaxpr) == 2 * network.flops(shape) + of_strides


def test_tokens_and_flops_follow_the_shape_that_is_asked_for():
    network = small(attention="joint", depth=1)
    shapes = ((4, 8, 12), (4, 16, 24), (2, 4, 8))
    assert [network.num_tokens(shape) for shape in shapes] == [4 * 2 * 3, 4 * 4 * 6, 2 * 1 * 2]
    tokens, d = 4.0, 24.0  # of the last: attention, feed-forward, modulation; ends; time
    block = 8 * tokens * d**2 + 4 * tokens**2 * d + 4 * tokens * d * (2 * d) + 2 * d * 6 * d
    ends = 2 * 2 * tokens * 32 * d + 2 * d * 2 * d + 2 * 256 * d + 2 * d**2
    assert network.flops((2, 4, 8)) == block + ends


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_parameters_serve_frames_of_two_sizes_and_a_coarse_stage(kind):
    """A fresh size compiles and computes: the mean of a tall video is not that of a wide one."""
    network = small(**KINDS[kind])
    params = randomised(network)
    stages = {
        "wide": (at(POSITIONS, noise()), (2, 1, 1), noise()),
        "tall": (at(POSITIONS, noise(3, 16, 8)), (2, 1, 1), noise(3, 16, 8)),
        "coarse": (coarse_positions(), (2, 2, 2), noise(3, 4, 8)),
    }
    outputs = {
        name: run(network, params, x, positions=positions, strides=strides)
        for name, (positions, strides, x) in stages.items()
    }
    for name, (_, _, x) in stages.items():
        assert outputs[name].shape == x.shape and np.isfinite(outputs[name]).all(), name
        assert np.abs(outputs[name]).max() > 0.1, name


def coarse_positions():
    """Means of 2 x 2 pixels of frames of 8 x 16: rows and columns at 0.5, 2.5, ..."""
    return Positions(
        POSITIONS, np.arange(0.5, 8, 2, dtype=np.float32), np.arange(0.5, 16, 2, dtype=np.float32)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_positions_of_rows_and_columns_matter(kind, axis):
    """A shift too: rotations see differences only, the sinusoids where a patch stands."""
    network = small(**KINDS[kind])
    params, x, full = randomised(network), noise(), at(POSITIONS, noise())
    output = run(network, params, x, positions=full)
    least = 1e-4 if kind == "levels" else 1e-3  # tokens are a part of what comes out of levels
    for moved in (getattr(full, axis) + 8.0, 2.0 * getattr(full, axis)):
        other = run(network, params, x, positions=full._replace(**{axis: moved}))
        assert np.abs(other - output).max() > least


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_swapping_patches_with_their_rows_and_columns_swaps_the_output(attention):
    """Nothing but the positions says which patch is which."""
    network = small(attention=attention)
    params, x, full = randomised(network), noise(), at(POSITIONS, noise())
    order = np.r_[8:12, 4:8, 0:4]  # columns of patches, turned around
    expected = run(network, params, x, positions=full)[..., order, :]
    turned = full._replace(columns=full.columns[order])
    result = run(network, params, x[..., order, :], positions=turned)
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_position_features_are_sinusoids_of_row_and_column():
    rows, columns = np.array([0.0, 3.0]), np.array([5.0, 0.5])
    frequencies = 10_000.0 ** (-np.arange(3) / 3)
    expected = [
        np.concatenate([f(p * frequencies) for p in patch for f in (np.cos, np.sin)])
        for patch in zip(rows, columns, strict=True)
    ]
    np.testing.assert_allclose(position_features(rows, columns, 12), expected, atol=1e-6)
    padded = position_features(rows, columns, 14)
    np.testing.assert_array_equal(padded[:, :12], position_features(rows, columns, 12))
    np.testing.assert_array_equal(padded[:, 12:], 0.0)
    traced = jax.jit(lambda r, c: position_features(r, c, 12))(rows, columns)
    np.testing.assert_allclose(traced, expected, atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_flops_are_near_the_compilers_where_matrix_products_dominate(attention):
    network = VideoDiT(
        VideoDiTConfig(
            patch_size=8, hidden_size=256, depth=1, num_heads=2, attention=attention,
            scan_layers=False,
        )
    )  # fmt: skip
    params = jax.eval_shape(network.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, 8, 32, 32, 1), jnp.float32)
    t, cond = jax.ShapeDtypeStruct((1,), jnp.float32), {"label": np.zeros((1, 1), np.int32)}
    where = at(np.arange(8.0), x)
    compiled = jax.jit(lambda p, x, t: network.apply(p, x, t, where, (1, 1, 1), cond))
    counted = compiled.lower(params, x, t).cost_analysis()["flops"]
    assert 1.0 < counted / network.flops((8, 32, 32)) < 1.05


def test_a_level_shifts_with_its_frames():
    """Away from the borders, and without the tokens, whose places are fixed."""
    network = small(level_channels=(8, 12))
    params, x = randomised(network), noise(height=24, width=24)
    params["folds"]["out"]["1"] = jax.tree.map(jnp.zeros_like, params["folds"]["out"]["1"])
    up = run(network, params, x)
    np.testing.assert_allclose(
        run(network, params, jnp.roll(x, 3, axis=2))[:, :, 9:18], up[:, :, 6:15], atol=2e-5
    )


def test_pixels_of_a_level_see_other_frames_and_neighbours():
    network = small(level_channels=(8, 12))
    params, x = randomised(network), noise()
    params["folds"]["out"]["1"] = jax.tree.map(jnp.zeros_like, params["folds"]["out"]["1"])
    change = np.abs(run(network, params, x.at[:, 0, 4, 6].add(3.0)) - run(network, params, x))
    assert change[:, 1:, 4, 6].min() > 1e-5, "the same pixel of other frames"
    assert change[:, 0, 1:8, 3:10].max(-1).min() > 0.0, "four convolutions, each of a pixel"
    np.testing.assert_array_equal(change[:, :, :, 11], 0.0)


def test_null_condition_replaces_labels_and_keeps_everything_else():
    network = small(num_classes=10)
    null = network.null_cond({"label": np.array([[3, 7]], np.int32), "other": "kept"})
    np.testing.assert_array_equal(null["label"], [[10, 10]])
    assert null["other"] == "kept"
    assert network.null_cond(None) is None


def test_inputs_that_do_not_fit_are_refused():
    network, x = small(), np.zeros((2, 3, 8, 12, 2))

    def apply_to(x, positions):
        network.apply({}, x, T, positions, (2, 1, 1), COND)

    for wrong in (x[..., :1], x[0]):
        with pytest.raises(ValueError, match=r"x_t must be \[b, f, h, w, 2\], got"):
            apply_to(wrong, at(POSITIONS, x))
    for wrong in (at(POSITIONS[:2], x), at(POSITIONS, x[:, :, :, :8])):
        with pytest.raises(ValueError, match=r"positions must be those of the .*\(3, 8, 12\)"):
            apply_to(x, wrong)
    with pytest.raises(ValueError, match="model.patch_size=4 needs frames of a width that is a"):
        apply_to(x[..., :10, :], at(POSITIONS, x[..., :10, :]))


def test_stages_that_patches_cannot_fill_are_refused_by_name():
    network = small()
    network.check_shape((3, 8, 12), (1, 1, 1))
    network.check_shape((3, 4, 8), (4, 4, 4))
    with pytest.raises(
        ValueError,
        match=r"model.patch_size=4 needs frames of a height that is a multiple of 4, the data's "
        r"have 30$",
    ):
        network.check_shape((3, 30, 12), (2, 1, 1))
    with pytest.raises(
        ValueError,
        match=r"model.patch_size=4 .* a width .* multiple of 4, the data's have 6 in the stage of "
        r"strides \(1, 2, 2\) of pyramid.strides",
    ):
        network.check_shape((3, 8, 6), (1, 2, 2))


def test_devices_must_divide_heads_and_the_patches_of_the_shape():
    sizes = small().axis_sizes((3, 8, 12))
    assert sizes["model.num_heads"] == ("heads", 2)
    assert sizes["the number of patches of a frame"] == ("tokens", 2 * 3)
    assert small().axis_sizes((3, 16, 12))["the number of patches of a frame"] == ("tokens", 4 * 3)
