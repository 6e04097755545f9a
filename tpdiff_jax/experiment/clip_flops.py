"""FLOPs of training on one clip, by the network's FLOP model or, where parts are frozen, a trace.

Backward costs twice the forward: once for the gradients of what comes in, once for those of the
parameters. A frozen matrix has none of its own, and what stands before everything that is trained
needs neither; jax traces no more than that, so the trace is counted, low-rank products included.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.models import Network
from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.planning.program_flops import matmul_flops
from tpdiff_jax.types import Array, CondShapes, Params, Positions

PLAIN: Mapping[str, str] = {"remat": "none", "attention_kernel": "xla"}
"""Fields of a network's config under which a trace holds its products and no recomputation."""


def clip_flops(
    network: Network, adaptation: Adaptation, cond_shapes: CondShapes, video_shape: tuple[int, ...]
) -> float:
    """Return the FLOPs of the network's forward and backward pass; recomputation is not in it.

    Args:
        network: what is trained.
        adaptation: which part of it.
        cond_shapes: shapes and types of a clip's condition.
        video_shape: of the clip, [f, h, w, c].
    """
    frames, height, width, _ = video_shape
    shape = (frames, height, width)
    if not adaptation.trained and not adaptation.rank:
        return 3.0 * network.flops(shape)
    plain = _plain(network)
    key = jax.random.key(0)
    trained, frozen = jax.eval_shape(lambda key: adaptation.split(plain.init(key), key), key)

    def loss(trained: Params, frozen: Params, x_t: Array, t: Array, cond: Any) -> Array:
        positions = Positions(*(np.arange(length, dtype=np.float32) for length in shape))
        params = adaptation.attach(trained, frozen)
        return jnp.sum(plain.apply(params, x_t, t, positions, (1, 1, 1), cond))

    x_t, t = (jax.ShapeDtypeStruct((1, *axes), jnp.float32) for axes in (video_shape, ()))
    cond = {
        name: jax.ShapeDtypeStruct((1, *axes), dtype) for name, (axes, dtype) in cond_shapes.items()
    }
    traced = jax.make_jaxpr(jax.value_and_grad(loss))(trained, frozen, x_t, t, cond)
    return matmul_flops(traced.jaxpr)


def _plain(network: Any) -> Any:
    """Return the network without rematerialisation and kernels, on one device."""
    config = dataclasses.replace(network.config, **PLAIN)
    return dataclasses.replace(network, config=config, layout=ONE_DEVICE)
