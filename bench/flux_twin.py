"""diffusers' Flux transformer with the parameters of ours, and the same inputs for both.

Every text token counts, so that neither network needs a mask. PyTorch gets the inputs as its
network takes them: patches in rows, ids instead of positions.
"""

import argparse
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from einops import rearrange

from bench.pytorch_twin import Inputs, Normal, Twin, to_device, to_tensors
from tpdiff_jax.models import Flux, FluxConfig
from tpdiff_jax.models.flux.weights import flux_rows
from tpdiff_jax.types import Array, Params, Shape
from tpdiff_jax.weights.key_table import places

LAYOUT = "pyramid_flow"  # a patch holds (row, column, channel), as here


def make_network(options: argparse.Namespace) -> Flux:
    """Return our network; a head has 64 channels, as in every published one.

    Raises:
        ValueError: when it cannot be built.
    """
    double, single = options.blocks
    config = FluxConfig(
        num_heads=options.heads,
        num_double_blocks=double,
        num_single_blocks=single,
        text_dim=256,
        num_text_tokens=32,
        pooled_dim=64,
        dtype=options.dtype,
        scan_layers=options.scan,
    )
    return Flux(config)


def make_cond(config: FluxConfig, normal: Normal) -> dict[str, Array]:
    """Draw text, all of it visible, and the pooled vector."""
    text = normal(config.num_text_tokens, config.text_dim)
    return {
        "text": text,
        "text_mask": jnp.ones(text.shape[:2], jnp.int32),
        "pooled": normal(config.pooled_dim),
    }


def make_model(config: FluxConfig, params: Params) -> torch.nn.Module:
    """Return diffusers' network with the same shape and the same parameters."""
    from diffusers import FluxTransformer2DModel  # the video DiT's twin does without

    model: Any = FluxTransformer2DModel(
        patch_size=1,  # patches are cut before the network there
        in_channels=config.patch_dim,
        num_layers=config.num_double_blocks,
        num_single_layers=config.num_single_blocks,
        attention_head_dim=config.head_dim,
        num_attention_heads=config.num_heads,
        joint_attention_dim=config.text_dim,
        pooled_projection_dim=config.pooled_dim,
        guidance_embeds=False,
        axes_dims_rope=config.rope_dims,
    )
    found = places(flux_rows(config, LAYOUT), params)
    model.load_state_dict(to_tensors(found, params), strict=True)
    return model


def arguments(config: FluxConfig, inputs: Inputs, device: torch.device) -> dict[str, Any]:
    """Return the arguments of diffusers' network for a batch."""
    tokens = rearrange(
        np.asarray(inputs.x_t),
        "b f (r p) (s q) c -> b (f r s) (p q c)",
        p=config.patch_size,
        q=config.patch_size,
    )
    rows, columns = (side // config.patch_size for side in inputs.x_t.shape[2:4])
    grid = (inputs.positions.frames, np.arange(rows), np.arange(columns))
    ids = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 3)
    return {
        "hidden_states": to_device(tokens, device),
        "encoder_hidden_states": to_device(inputs.cond["text"], device),
        "pooled_projections": to_device(inputs.cond["pooled"], device),
        "timestep": to_device(inputs.t, device) / 1000,
        "img_ids": to_device(ids.astype(np.float32), device),
        "txt_ids": torch.zeros(config.num_text_tokens, 3, device=device),
    }


def to_video(config: FluxConfig, tokens: torch.Tensor, shape: Shape) -> np.ndarray:
    """Return diffusers' output as our network's, [b, f, h, w, c]."""
    return rearrange(
        tokens.detach().float().cpu().numpy(),
        "b (f r s) (p q c) -> b f (r p) (s q) c",
        f=shape[0],
        r=shape[1] // config.patch_size,
        s=shape[2] // config.patch_size,
        p=config.patch_size,
        q=config.patch_size,
    )


FLUX = Twin(
    title="Flux",
    network=make_network,
    cond=make_cond,
    make_model=make_model,
    arguments=arguments,
    to_video=to_video,
)
