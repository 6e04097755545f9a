"""What the backward pass of a stack of blocks keeps, and what it computes again."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from tpdiff_jax.models.layers.basic import FeedForward
from tpdiff_jax.models.layers.block_stack import apply_stack, new_stack
from tpdiff_jax.planning.program_flops import matmul_flops

DEPTH, TOKENS, WIDTH, HIDDEN = 3, 5, 4, 8
PRODUCT = 2.0 * TOKENS * WIDTH * HIDDEN  # FLOPs; a layer has two


@dataclasses.dataclass(frozen=True)
class Config:
    """How the blocks run."""

    remat: str
    scan_layers: bool


class Block(nnx.Module):
    """Two products with an activation between."""

    def __init__(self, config: Any, rngs: nnx.Rngs):
        del config
        self.feed_forward = FeedForward(WIDTH, HIDDEN, "silu", jnp.float32, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.feed_forward(x)


def gradient_flops(remat: str, scan_layers: bool) -> float:
    """Of the forward and the backward pass."""
    config = Config(remat, scan_layers)
    stack = new_stack(Block, config, DEPTH, jax.random.key(0))
    gradient = jax.grad(lambda stack, x: apply_stack(Block, config, stack, x).sum(), (0, 1))
    return matmul_flops(jax.make_jaxpr(gradient)(stack, jnp.ones((TOKENS, WIDTH))).jaxpr)


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize(
    ("remat", "again"), [("none", 0), ("dots", 0), ("offload", 0), ("full", 1)]
)
def test_a_policy_that_keeps_products_computes_none_again(
    remat: str, again: int, scan_layers: bool
) -> None:
    """`full` takes the product before the activation again; no gradient asks for the last one's."""
    of_layer = 2 * 3 + again  # each forward, and backward twice
    assert gradient_flops(remat, scan_layers) == DEPTH * of_layer * PRODUCT
