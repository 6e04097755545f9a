"""diffusers' UNetMotionModel with the parameters of our AnimateDiff, and the same inputs."""

import argparse
from typing import Any

import numpy as np
import torch

from bench.pytorch_twin import Inputs, Normal, Twin, to_device, to_tensors
from tpdiff_jax.models import AnimateDiff, AnimateDiffConfig
from tpdiff_jax.models.animatediff.weight_rows import animatediff_rows
from tpdiff_jax.models.animatediff.weights import UNET, published_animatediff_fields
from tpdiff_jax.types import Array, Params, Shape
from tpdiff_jax.weights.key_table import places


def make_network(options: argparse.Namespace) -> AnimateDiff:
    """Return our network with norms over all frames, as diffusers has them, and published ratios.

    Raises:
        ValueError: when it cannot be built.
    """
    width = 32 * options.heads
    config = AnimateDiffConfig(
        level_channels=(width, 2 * width, 4 * width, 4 * width),
        num_heads=options.heads,
        text_dim=256,
        num_text_tokens=32,
        motion_norm="all_frames",
        dtype=options.dtype,
    )
    return AnimateDiff(config)


def make_cond(config: AnimateDiffConfig, normal: Normal) -> dict[str, Array]:
    """Draw text."""
    return {"text": normal(config.num_text_tokens, config.text_dim)}


def make_model(config: AnimateDiffConfig, params: Params) -> torch.nn.Module:
    """Return diffusers' network with the same shape and the same parameters."""
    from diffusers import UNetMotionModel  # the video DiT's twin does without

    fields = published_animatediff_fields(config, UNET, "combined")
    model: Any = UNetMotionModel.from_config(fields)
    tensors = to_tensors(places(animatediff_rows(config), params), params)
    model.load_state_dict(dict(model.named_buffers()) | tensors, strict=True)
    return model


def arguments(config: AnimateDiffConfig, inputs: Inputs, device: torch.device) -> dict[str, Any]:
    """Return the arguments of diffusers' network for a batch; its text is repeated over frames."""
    del config
    text = to_device(inputs.cond["text"], device)
    return {
        "sample": to_device(np.moveaxis(np.asarray(inputs.x_t), -1, 1), device),
        "timestep": to_device(inputs.t, device),
        "encoder_hidden_states": text.repeat_interleave(inputs.x_t.shape[1], dim=0),
    }


def to_video(config: AnimateDiffConfig, output: torch.Tensor, shape: Shape) -> np.ndarray:
    """Return diffusers' output as our network's, [b, f, h, w, c]."""
    del config, shape
    return np.moveaxis(output.detach().float().cpu().numpy(), 1, -1)


ANIMATEDIFF = Twin(
    title="AnimateDiff",
    network=make_network,
    cond=make_cond,
    make_model=make_model,
    arguments=arguments,
    to_video=to_video,
)
