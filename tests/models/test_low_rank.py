"""Low-rank changes beside the matrices: what merged weights give, without the matrix's gradient."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from tests.models.animatediff import animatediff_reference
from tests.models.flux import flux_reference
from tests.models.full_size import at
from tests.models.modelscope import modelscope_reference
from tests.models.open_sora import open_sora_reference
from tests.models.wan import wan_reference
from tpdiff_jax.models import AnimateDiff, Flux, ModelScope, OpenSora, VideoDiT, VideoDiTConfig, Wan
from tpdiff_jax.models.layers.basic import Linear, RMSNorm
from tpdiff_jax.models.layers.block_stack import bind, new_params
from tpdiff_jax.models.layers.residual_block import SAME, frame_conv
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.planning.program_flops import matmul_flops

FRAMES, ADAPTATION = 3, Adaptation(rank=2, alpha=4.0)
STRIDES = (2, 2, 2)
"""Of a stage that is slower and smaller: all that embeds the strides has its part in the output."""
DIT = VideoDiTConfig(
    channels=2, patch_size=4, hidden_size=24, depth=2, num_heads=2, mlp_ratio=2.0, qk_norm=True
)
RNG = np.random.default_rng(0)
LABELS = {"label": np.array([[3], [7]])}


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


class Case(NamedTuple):
    """A network, its inputs and the pattern of its blocks' parameters."""

    network: Any
    inputs: tuple[Any, Any, Any]
    blocks: str

    def with_fields(self, **fields: Any) -> "Case":
        config = dataclasses.replace(self.network.config, **fields)
        return self._replace(network=dataclasses.replace(self.network, config=config))

    def output(self, params: Any) -> Any:
        x, t, cond = self.inputs
        positions = at(np.arange(FRAMES, dtype=np.float32), x)
        return self.network.apply(params, jnp.asarray(x), jnp.asarray(t), positions, STRIDES, cond)


CASES = {
    "video_dit": Case(
        VideoDiT(DIT),
        (normal(2, FRAMES, 8, 12, 2), np.array([100.0, 900.0]), LABELS),
        "blocks/.*",
    ),
    "video_dit_levels": Case(
        VideoDiT(dataclasses.replace(DIT, level_channels=(4, 6))),
        (normal(2, FRAMES, 8, 12, 2), np.array([100.0, 900.0]), LABELS),
        "(blocks|down_.|up_.)/.*",
    ),
    "flux": Case(
        Flux(flux_reference.CONFIG), flux_reference.make_inputs(FRAMES), "(double|single)_blocks/.*"
    ),
    "animatediff": Case(
        AnimateDiff(animatediff_reference.CONFIG),
        animatediff_reference.make_inputs(FRAMES),
        "(down|middle|up)/.*",
    ),
    "modelscope": Case(
        ModelScope(modelscope_reference.CONFIG),
        modelscope_reference.make_inputs(FRAMES),
        "(entrance|down|middle|up)/.*",
    ),
    "open_sora": Case(
        OpenSora(open_sora_reference.CONFIGS["stdit3"]),
        open_sora_reference.make_inputs(FRAMES),
        "blocks/.*",
    ),
    "wan": Case(Wan(wan_reference.CONFIG), wan_reference.make_inputs(FRAMES), "blocks/.*"),
}
WAYS = {
    "scanned": {},
    "unrolled": {"scan_layers": False},
    "recomputed": {"remat": "full"},
}
UNETS = ("animatediff", "modelscope")
RUNS = [
    pytest.param(name, way, marks=() if is_quick else pytest.mark.slow)
    for name in CASES
    for way in WAYS
    if not (name in UNETS and way == "unrolled")  # every layer is compiled by itself
    for is_quick in (name not in UNETS and way == "scanned",)
]


def opened(tree: Any) -> Any:
    """Random values of unit gain for every shape, so that no gate and no B is closed."""
    rng = np.random.default_rng(1)

    def draw(path: Any, leaf: Any) -> Any:
        fan_in = 4.0 if path[-1].key == "lora_b" else max(1, np.prod(leaf.shape[-2:-1]))
        return (rng.standard_normal(leaf.shape) * min(0.2, fan_in**-0.5)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def parts(case: Case, adaptation: Adaptation) -> tuple[Any, Any]:
    """Trained and frozen parameters, all of them random."""
    init = case.network.init
    shapes = jax.eval_shape(lambda key: adaptation.split(init(key), key), jax.random.key(0))
    return opened(shapes[0]), opened(shapes[1])


def distance(a: Any, b: Any) -> float:
    """Of two trees, relative to the second."""
    square = sum(np.sum(np.square(np.float64(y))) for y in jax.tree.leaves(b))
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return (
        float(sum(np.sum(np.square(np.float64(x) - np.float64(y))) for x, y in pairs) / square)
        ** 0.5
    )


def gradients(case: Case, join: Any) -> Any:
    """Of a sum over the output with other weights everywhere; and the output: one program."""

    def loss(trained: Any, frozen: Any) -> Any:
        out = case.output(join(trained, frozen))
        return jnp.sum(jnp.cos(jnp.arange(out.size)).reshape(out.shape) * out), out

    return jax.jit(jax.grad(loss, has_aux=True))


@functools.cache
def of_merged_weights(name: str) -> Any:
    """What every way of running a network is held against; its layers are scanned."""
    case = CASES[name]
    trained, frozen = parts(case, ADAPTATION)
    of_merged = gradients(case, ADAPTATION.merge)
    merged_grads, merged = of_merged(trained, frozen)
    _, unchanged = of_merged(jax.tree.map(np.zeros_like, trained), frozen)
    assert distance(unchanged, merged) > 0.1, "the changes matter"
    return merged_grads, merged


@pytest.mark.parametrize(("name", "way"), RUNS)
def test_outputs_and_gradients_are_those_of_merged_weights(name: str, way: str) -> None:
    """Of all matrices of a network at once: none is without its change."""
    case = CASES[name].with_fields(**WAYS[way])
    grads, out = gradients(case, ADAPTATION.attach)(*parts(case, ADAPTATION))
    merged_grads, merged = of_merged_weights(name)
    assert distance(out, merged) < 1e-5
    # What adds the same to every score of a softmax has no gradient: rounding against the whole.
    assert distance(grads, merged_grads) < 1e-4
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(merged_grads))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale),
        grads,
        merged_grads,
    )


def step_flops(case: Case, rank: int, is_merged: bool = False) -> float:
    """Matrix-product FLOPs of the loss and its gradient, low rank on all block matrices."""
    adaptation = Adaptation(trained=case.blocks, rank=rank)
    join = adaptation.merge if is_merged else adaptation.attach
    init = case.network.init
    shapes = jax.eval_shape(lambda key: adaptation.split(init(key), key), jax.random.key(0))

    def loss(trained: Any, frozen: Any) -> Any:
        return jnp.sum(jnp.square(case.output(join(trained, frozen))))

    return matmul_flops(jax.make_jaxpr(jax.value_and_grad(loss))(*shapes).jaxpr)


@functools.cache
def low_rank_flops(name: str, way: str, rank: int) -> float:
    """Of a step of one of the networks; traced once for all tests that ask."""
    return step_flops(CASES[name].with_fields(**WAYS[way]), rank)


@functools.cache
def forward_flops(name: str) -> float:
    """Matrix-product FLOPs of the network alone."""
    params = jax.eval_shape(CASES[name].network.init, jax.random.key(0))
    return matmul_flops(jax.make_jaxpr(CASES[name].output)(params).jaxpr)


def passes_without_rank(name: str, way: str) -> float:
    """Forward passes that a step takes beside the products which grow with the rank."""
    one, two = (low_rank_flops(name, way, rank) for rank in (1, 2))
    return (2 * one - two) / forward_flops(name)


@pytest.mark.parametrize(("name", "way"), RUNS)
def test_no_frozen_matrix_has_a_gradient(name: str, way: str) -> None:
    """Beside products that grow with the rank: a forward pass, and one back (two of attention)."""
    assert 1.7 < passes_without_rank(name, way) < (3.1 if way == "recomputed" else 2.1)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in UNETS else n for n in CASES]
)
def test_low_rank_products_grow_with_the_rank_and_merged_matrices_have_gradients(name: str) -> None:
    one, two, three = (low_rank_flops(name, "scanned", rank) for rank in (1, 2, 3))
    assert three - two == two - one > 0
    merged = step_flops(CASES[name], 1, is_merged=True) / forward_flops(name)
    assert merged - passes_without_rank(name, "scanned") > 0.8, "of every block's matrices"


def test_a_wide_network_at_rank_16_takes_at_most_2_1_forward_passes() -> None:
    """16 is then small against the width, as in networks that are adapted."""
    label = {"label": np.zeros((1, 1), np.int32)}
    wide = dataclasses.replace(DIT, hidden_size=1024, num_heads=16, mlp_ratio=4.0)
    inputs = (np.zeros((1, FRAMES, 8, 12, 2), np.float32), np.zeros(1, np.float32), label)
    case = Case(VideoDiT(wide), inputs, "blocks/.*")
    params = jax.eval_shape(case.network.init, jax.random.key(0))
    forward = matmul_flops(jax.make_jaxpr(case.output)(params).jaxpr)
    assert step_flops(case, 16) <= 2.1 * forward
    assert step_flops(case, 16, is_merged=True) > 2.9 * forward


def linear(config: Any, rngs: nnx.Rngs) -> Linear:
    return Linear(6, 5, dtype=config, rngs=rngs)


def test_a_linear_layer_computes_in_its_own_type_and_adds_the_narrow_product() -> None:
    x, kernel, low_a, low_b, bias = (
        normal(4, 6),
        normal(6, 5),
        normal(6, 2),
        normal(2, 5),
        normal(5),
    )
    params = {"kernel": kernel, "bias": bias, "lora_a": low_a, "lora_b": low_b}
    expected = np.float64(x) @ kernel + bias + np.float64(x) @ low_a @ low_b
    found = bind(linear, jnp.dtype(jnp.float32), params)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    rounded = bind(linear, jnp.dtype(jnp.bfloat16), params)(x)
    assert rounded.dtype == jnp.bfloat16 and found.dtype == jnp.float32
    np.testing.assert_allclose(np.float32(rounded), expected, rtol=0.03, atol=0.1)
    # The products see rounded factors: what float32 factors would give is another number.
    x_r, a_r, b_r = (np.asarray(jnp.asarray(v, jnp.bfloat16)) for v in (x, low_a, low_b))
    narrow = bind(
        linear, jnp.dtype(jnp.bfloat16), params | {"kernel": 0 * kernel, "bias": 0 * bias}
    )
    np.testing.assert_array_equal(narrow(x), jnp.asarray(x_r) @ jnp.asarray(a_r) @ jnp.asarray(b_r))


@pytest.mark.parametrize(("stride", "padding"), [(1, SAME), (2, SAME), (2, ((0, 1), (0, 1)))])
def test_a_convolution_is_that_of_torch_narrow_then_one_by_one(stride: int, padding: Any) -> None:
    """And that of the merged kernel."""

    def conv(config: Any, rngs: nnx.Rngs) -> Any:
        return frame_conv(4, 5, config, rngs, stride=stride, padding=padding)

    x, kernel, low_a, low_b = (
        normal(2, 3, 6, 8, 4),
        normal(3, 3, 4, 5),
        normal(3, 3, 4, 2),
        normal(2, 5),
    )
    params = {"kernel": kernel, "bias": normal(5)}
    low = {"conv": {"lora_a": low_a, "lora_b": low_b}}
    adaptation, frozen = Adaptation(rank=2, alpha=1.0), {"conv": params}
    dtype = jnp.dtype(jnp.float32)
    found = bind(conv, dtype, adaptation.attach(low, frozen)["conv"])(x)
    merged = bind(conv, dtype, adaptation.merge(low, frozen)["conv"])(x)
    assert distance(found, merged) < 1e-5

    def torch_conv(image: Any, weights: Any, **how: Any) -> Any:
        return torch.conv2d(
            image, torch.from_numpy(np.transpose(weights, (3, 2, 0, 1)).copy()), **how
        )

    (top, bottom), (left, right) = padding
    image = torch.from_numpy(np.moveaxis(x.reshape(6, 6, 8, 4), -1, 1).copy())
    image = torch.nn.functional.pad(image, (left, right, top, bottom))
    narrow = torch_conv(image, low_a, stride=stride)
    expected = torch_conv(image, kernel, stride=stride) + 0.5 * torch_conv(
        narrow, low_b[None, None]
    )
    expected = np.moveaxis(expected.numpy(), 1, -1) + params["bias"]
    assert distance(found, expected.reshape(found.shape)) < 1e-5


def test_without_a_change_layers_are_flaxs_own_bit_for_bit() -> None:
    x, ours = normal(4, 6), bind(linear, None, new_params(linear, None, jax.random.key(0)))
    flaxs = nnx.Linear(6, 5, rngs=nnx.Rngs(jax.random.key(0)))
    np.testing.assert_array_equal(ours(x), flaxs(x))


class Norms(nnx.Module):
    """A part without a matrix."""

    def __init__(self, config: Any, rngs: nnx.Rngs):
        del config, rngs
        self.norm = RMSNorm(3)


def test_changes_of_what_can_have_none_are_refused() -> None:
    params = {"norm": {"scale": np.ones(3), "lora_a": np.ones((3, 1)), "lora_b": np.ones((1, 3))}}
    with pytest.raises(ValueError, match="norm can have no low-rank change"):
        bind(Norms, None, params)
