"""FLOPs of training count the gradients that are needed: by hand, and as the compiler counts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.clip_flops import clip_flops
from tpdiff_jax.infra.adaptation import Adaptation
from tpdiff_jax.models import AnimateDiff, AnimateDiffConfig
from tpdiff_jax.models.animatediff import unet_steps
from tpdiff_jax.models.one_device import OneDevice
from tpdiff_jax.types import Layout

WIDTH, FRAMES = 64, 16
PRODUCT = 2.0 * FRAMES * WIDTH * WIDTH
SHAPE = (FRAMES, 1, 1, WIDTH)
SMALL = AnimateDiffConfig(
    frame_height=4, frame_width=4, channels=3, level_channels=(8, 16), level_depth=1, num_heads=2,
    num_groups=4, text_dim=10, num_text_tokens=5,
)  # fmt: skip
TEXT = {"text": ((5, 10), np.dtype(np.float16))}


@dataclasses.dataclass(frozen=True)
class ThreeConfig:
    """Fields that say how, not what, a network computes."""

    remat: str = "full"
    attention_kernel: str = "auto"


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
            x = jnp.sin(x @ params[name]["kernel"])
        return x

    def flops(self, num_frames: int) -> float:
        return 3 * PRODUCT * num_frames / FRAMES


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
    assert found == 3.0 * network.flops(4) - stem - text


def test_motion_modules_alone_cost_less_and_low_rank_as_much_as_its_matrices() -> None:
    network, video = AnimateDiff(SMALL), (4, 4, 4, 3)
    motion = clip_flops(network, Adaptation(trained=".*/motion/.*"), TEXT, video)
    assert 2.0 * network.flops(4) < motion < 2.6 * network.flops(4)
    pattern = ".*/attention_./q/kernel"
    low_rank, whole = (
        clip_flops(network, Adaptation(trained=pattern, rank=rank), TEXT, video) for rank in (2, 0)
    )
    assert low_rank == whole < motion
