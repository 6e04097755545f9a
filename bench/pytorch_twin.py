"""What the same network here and in PyTorch needs: one draw of parameters and of inputs.

Latents, text and times are drawn once; `flux_twin` and `animatediff_twin` hand them to diffusers'
networks in the form that those take, `video_dit_twin` to one written for the purpose.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from tpdiff_jax.models import Network
from tpdiff_jax.types import Array, Params, Positions, Shape
from tpdiff_jax.weights.key_table import Place, export_tensor, flatten_params

Normal = Callable[..., Array]
"""Standard normal numbers of a shape, with the batch axis in front."""


class Inputs(NamedTuple):
    """One batch, as our network takes it."""

    x_t: Array
    t: Array
    positions: Positions
    cond: Any


class Twin(NamedTuple):
    """One kind of network in both libraries; a config is that of our network.

    Attributes:
        title: what to call it.
        network: our network, of the command line's sizes.
        cond: draws a condition.
        make_model: diffusers' network with these parameters.
        arguments: diffusers' arguments for a batch, on a device.
        to_video: diffusers' output of a video's shape as ours, [b, f, h, w, c].
        optimizer: of a whole training step, as in the network's own config: "adamw" or "muon".
    """

    title: str
    network: Callable[[argparse.Namespace], Network]
    cond: Callable[[Any, Normal], Any]
    make_model: Callable[[Any, Params], torch.nn.Module]
    arguments: Callable[[Any, Inputs, torch.device], dict[str, Any]]
    to_video: Callable[[Any, torch.Tensor, Shape], np.ndarray]
    optimizer: str = "adamw"


def make_inputs(twin: Twin, config: Any, batch_size: int, shape: Shape, seed: int = 0) -> Inputs:
    """Draw latents [b, f, h, w, c] of (frames, height, width), times and a condition.

    The times are small: at 1000 single precision leaves the sinusoids of either network 5e-5 from
    the truth.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return jnp.asarray(rng.standard_normal((batch_size, *shape)), jnp.float32)

    cond = twin.cond(config, normal)
    t = jnp.asarray(rng.uniform(1.0, 60.0, batch_size), jnp.float32)
    positions = Positions(*(np.arange(length, dtype=np.float32) for length in shape))
    return Inputs(normal(*shape, config.channels), t, positions, cond)


def make_params(network: Network, seed: int = 0) -> Params:
    """Draw parameters so that no gate is closed and every part matters.

    Kernels have unit gain, scales are near 1. Drawn by numpy: a program that draws each parameter
    of a network without equal blocks takes longer to compile than the network.
    """
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> Array:
        noise, name = rng.standard_normal(leaf.shape), path[-1].key
        if name == "kernel":
            return jnp.asarray(noise / math.sqrt(math.prod(leaf.shape[:-1])), leaf.dtype)
        return jnp.asarray(0.05 * noise + (name == "scale"), leaf.dtype)

    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def to_tensors(found: Mapping[str, Place], params: Params) -> dict[str, torch.Tensor]:
    """Return the parameters under diffusers' names."""
    leaves = flatten_params(params)
    return {
        name: torch.from_numpy(export_tensor(leaves, place, np.dtype(np.float32)).copy())
        for name, place in found.items()
    }


def to_device(x: Any, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor."""
    return torch.from_numpy(np.array(x)).to(device)
