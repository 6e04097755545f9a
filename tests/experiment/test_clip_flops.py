"""FLOPs of training count the gradients that are needed: by hand, and as the compiler counts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.experiment.clip_flops import clip_flops
from tpdiff_jax.models import AnimateDiff, AnimateDiffConfig
from tpdiff_jax.models.animatediff.network import unet_steps
from tpdiff_jax.models.layers.basic import Linear
from tpdiff_jax.models.layers.block_stack import bind
from tpdiff_jax.models.layers.one_device import OneDevice
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.planning.program_flops import matmul_flops
from tpdiff_jax.training.cost import step_flops
from tpdiff_jax.training.initial_state import abstract_train_state
from tpdiff_jax.training.step_programs import trace_gradient
from tpdiff_jax.types import Layout

WIDTH, FRAMES = 64, 16
PRODUCT = 2.0 * FRAMES * WIDTH * WIDTH
SHAPE = (FRAMES, 1, 1, WIDTH)
SMALL = AnimateDiffConfig(
    channels=3, level_channels=(8, 16), level_depth=1, num_heads=2,
    num_groups=4, text_dim=10, num_text_tokens=5,
)  # fmt: skip
TEXT = {"text": ((5, 10), np.dtype(np.float16))}


@dataclasses.dataclass(frozen=True)
class ThreeConfig:
    """Fields that say how, not what, a network computes."""

    remat: str = "full"
    attention_kernel: str = "auto"


def matrix(config: None, rngs: nnx.Rngs) -> Linear:
    """Return one matrix."""
    del config
    return Linear(WIDTH, WIDTH, use_bias=False, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Three:
    """Three matrices, one after another."""

    config: ThreeConfig = dataclasses.field(default_factory=ThreeConfig)
    layout: Layout = dataclasses.field(default_factory=OneDevice)

    def init(self, key: Any) -> dict[str, Any]:
        del key
        return {name: {"kernel": jnp.ones((WIDTH, WIDTH))} for name in ("a", "b", "c")}

    def apply(self, params: Any, x: Any, *rest: Any) -> Any:
        del rest
        for name in ("a", "b", "c"):
            x = jnp.sin(bind(matrix, None, params[name])(x))
        return x

    def flops(self, shape: tuple[int, int, int]) -> float:
        return 3 * PRODUCT * shape[0] / FRAMES


@pytest.mark.parametrize(
    ("trained", "products"),
    [
        ("", 9),  # by the model: three times the forward pass
        (".*", 8),  # what comes in needs no gradient
        ("a/.*", 6),  # its own, and two hand it on
        ("b/.*", 5),
        ("c/.*", 4),
        ("[ac]/.*", 7),
    ],
)
def test_frozen_matrices_hand_gradients_on_and_have_none(trained: str, products: int) -> None:
    network: Any = Three()
    assert clip_flops(network, Adaptation(trained=trained), {}, SHAPE) == products * PRODUCT


@pytest.mark.parametrize(
    ("trained", "products", "narrow"),
    [
        ("", 5, 17),  # of a: x A, h B and their gradients but that of x; of b and c that too
        ("a/.*", 5, 5),
        ("c/.*", 3, 5),  # nothing that is frozen hands a gradient on
        ("[bc]/.*", 4, 11),
    ],
)
@pytest.mark.parametrize("rank", [1, 4])
def test_low_rank_steps_have_narrow_products_in_the_place_of_a_matrix_gradient(
    trained: str, products: int, narrow: int, rank: int
) -> None:
    network: Any = Three()
    found = clip_flops(network, Adaptation(trained=trained, rank=rank), {}, SHAPE)
    assert found == products * PRODUCT + narrow * 2.0 * FRAMES * WIDTH * rank


def test_the_compiler_counts_the_same_products() -> None:
    network, x = Three(), jnp.ones((1, *SHAPE))
    rest = network.init(None)
    trained = {"b": rest.pop("b")}

    def loss(trained: Any, rest: Any, x: Any) -> Any:
        return jnp.sum(network.apply(trained | rest, x))

    compiled = jax.jit(jax.value_and_grad(loss)).lower(trained, rest, x).compile()
    found = compiled.cost_analysis()["flops"]
    assert 5 * PRODUCT <= found < 5.1 * PRODUCT


def test_everything_trained_is_the_model_without_the_gradients_of_what_comes_in() -> None:
    network = AnimateDiff(dataclasses.replace(SMALL, remat="full"))
    width, video = 8, (4, 4, 4, 3)
    stem = 2.0 * 9 * 4 * 16 * 3 * width + 2.0 * width * 4 * width
    spatial = [s.shape for s in unet_steps(SMALL) if s.kind.part.__name__ == "Layer"]
    text = sum(4.0 * 5 * 10 * shape.out_channels for shape in spatial if shape.has_attention)
    found = clip_flops(network, Adaptation(trained=".*"), TEXT, video)
    assert found == 3.0 * network.flops((4, 4, 4)) - stem - text


def test_motion_modules_alone_cost_less_than_everything() -> None:
    network, video = AnimateDiff(SMALL), (4, 4, 4, 3)
    motion = clip_flops(network, Adaptation(trained=".*/motion/.*"), TEXT, video)
    assert 2.0 * network.flops((4, 4, 4)) < motion < 2.6 * network.flops((4, 4, 4))


def test_low_rank_costs_grow_by_the_rank_from_below_those_of_the_matrices() -> None:
    network, video = AnimateDiff(SMALL), (4, 4, 4, 3)
    whole, one, two, three = (
        clip_flops(network, Adaptation(trained=".*/attention_./q/kernel", rank=rank), TEXT, video)
        for rank in (0, 1, 2, 3)
    )
    assert three - two == two - one > 0
    assert 2 * one - two < whole


@pytest.mark.parametrize("rank", [2, 16])
def test_a_gradients_trace_holds_the_products_that_are_counted(rank: int) -> None:
    """Those of the network and of the pairing of noise."""
    fields = {"adaptation__rank": rank, "adaptation__trained": "blocks/.*"}
    experiment = build_experiment(tiny_config(optim__name="adamw", **fields))
    state, key = abstract_train_state(experiment), jax.random.key(0)
    for stage, counted in enumerate(step_flops(experiment)):
        traced = matmul_flops(trace_gradient(experiment.programs[stage], state, key).jaxpr)
        assert traced == pytest.approx(counted.network + counted.alignment, rel=0.02)
        assert counted.alignment < 0.2 * counted.network
