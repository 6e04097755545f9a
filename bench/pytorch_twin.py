"""diffusers' Flux transformer with the parameters of ours, and the same inputs for both.

Latents, text and times are drawn once; every text token counts, so that neither network needs a
mask. PyTorch gets them as its network takes them: patches in rows, ids instead of positions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from einops import rearrange

from tpdiff_jax.models import Flux, FluxConfig
from tpdiff_jax.pretrained.flux import flux_rows
from tpdiff_jax.pretrained.key_table import export_tensor, flatten, places
from tpdiff_jax.types import Array, Params

LAYOUT = "pyramid_flow"  # a patch holds (row, column, channel), as here


class Inputs(NamedTuple):
    """One batch, as our network takes it."""

    x_t: Array
    t: Array
    positions: np.ndarray
    cond: dict[str, Array]


def make_inputs(config: FluxConfig, batch_size: int, num_frames: int, seed: int = 0) -> Inputs:
    """Draw latents [b, f, h, w, c], times and a condition.

    The times are small: at 1000 single precision leaves the sinusoids of either network 5e-5 from
    the truth.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return jnp.asarray(rng.standard_normal((batch_size, *shape)), jnp.float32)

    frame = (config.frame_height, config.frame_width, config.channels)
    cond = {
        "text": normal(config.num_text_tokens, config.text_dim),
        "text_mask": jnp.ones((batch_size, config.num_text_tokens), jnp.int32),
        "pooled": normal(config.pooled_dim),
    }
    t = jnp.asarray(rng.uniform(1.0, 60.0, batch_size), jnp.float32)
    return Inputs(normal(num_frames, *frame), t, np.arange(num_frames, dtype=np.float32), cond)


def make_params(config: FluxConfig, seed: int = 0) -> Params:
    """Fresh parameters with noise added, so that no gate is closed and every part matters."""
    key_init, key_noise = jax.random.split(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(jax.jit(Flux(config).init)(key_init))
    keys = jax.random.split(key_noise, len(leaves))
    noisy = [x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def make_twin(config: FluxConfig, params: Params, device: torch.device) -> torch.nn.Module:
    """Return diffusers' network with the same shape and the same parameters."""
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
    found, leaves = places(flux_rows(config, LAYOUT), params), flatten(params)
    tensors = {
        name: torch.from_numpy(export_tensor(leaves, place, np.dtype(np.float32)).copy())
        for name, place in found.items()
    }
    model.load_state_dict(tensors, strict=True)
    return model.to(device)


def twin_inputs(config: FluxConfig, inputs: Inputs, device: torch.device) -> dict[str, Any]:
    """Return the arguments of diffusers' network for a batch."""

    def tensor(x: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(x)).to(device)

    tokens = rearrange(
        np.asarray(inputs.x_t),
        "b f (r p) (s q) c -> b (f r s) (p q c)",
        p=config.patch_size,
        q=config.patch_size,
    )
    grid = (inputs.positions, np.arange(config.num_rows), np.arange(config.num_columns))
    ids = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 3)
    return {
        "hidden_states": tensor(tokens),
        "encoder_hidden_states": tensor(inputs.cond["text"]),
        "pooled_projections": tensor(inputs.cond["pooled"]),
        "timestep": tensor(inputs.t) / 1000,
        "img_ids": tensor(ids.astype(np.float32)),
        "txt_ids": torch.zeros(config.num_text_tokens, 3, device=device),
    }


def to_video(config: FluxConfig, tokens: torch.Tensor, num_frames: int) -> np.ndarray:
    """Return diffusers' output as our network's, [b, f, h, w, c]."""
    return rearrange(
        tokens.detach().float().cpu().numpy(),
        "b (f r s) (p q c) -> b f (r p) (s q) c",
        f=num_frames,
        r=config.num_rows,
        s=config.num_columns,
        p=config.patch_size,
        q=config.patch_size,
    )
