"""diffusers' FluxTransformer2DModel on small random weights, as the reference for parity tests.

Weights are drawn so that every part matters: matrices and biases with standard deviation 0.2, the
scales of norms near 1, and nothing left at the zero that training starts from. With weaker weights
an error in the temporal positions would vanish below any tolerance.
"""

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from einops import rearrange

from tpdiff_jax.models import FluxConfig
from tpdiff_jax.models.flux.weights import abstract_flux_params, flux_rows
from tpdiff_jax.weights.key_table import import_params, places

PATCH, CHANNELS = 2, 3
HEIGHT, WIDTH = 4, 6
CONFIG = FluxConfig(
    channels=CHANNELS, patch_size=PATCH, num_heads=2, num_double_blocks=2, num_single_blocks=2,
    rope_dims=(4, 6, 6), text_dim=16, num_text_tokens=5, pooled_dim=12,
)  # fmt: skip


def make_reference(seed=0):
    """Return the reference network with random weights."""
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=PATCH**2 * CHANNELS, num_layers=2, num_single_layers=2,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
        pooled_projection_dim=12, guidance_embeds=False, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = "norm_q" in name or "norm_k" in name or "norm_added" in name
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1.0 + 0.1 * noise if is_scale else 0.2 * noise)
    return model


def to_params(tensors, config=CONFIG):
    """Tensors of the reference, or their gradients, as a tree of our parameters."""
    shapes = abstract_flux_params(config)
    found = places(flux_rows(config, "pyramid_flow"), shapes)
    return import_params(found, lambda name: tensors[name].detach().numpy(), shapes)


def make_inputs(num_frames, seed=0):
    """Latents, times and a condition whose second prompt is padded.

    The times are small: at 1000 single precision leaves the sinusoids of either network 5e-5 from
    the truth, which is more than the tolerance of the parity tests.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    cond = {
        "text": normal(2, 5, 16),
        "text_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], np.int32),
        "pooled": normal(2, 12),
    }
    x = normal(2, num_frames, HEIGHT, WIDTH, CHANNELS)
    return x, np.array([7.0, 64.0], np.float32), cond


def visible(text_mask, frame_of_token, is_causal):
    """Which key each query sees, from the rules in words: booleans [b, 1, l, l]."""
    num_text, num_tokens = text_mask.shape[1], text_mask.shape[1] + len(frame_of_token)
    result = np.zeros((len(text_mask), 1, num_tokens, num_tokens), bool)
    for b, mask in enumerate(text_mask):
        is_pad = [i < num_text and mask[i] == 0 for i in range(num_tokens)]
        frame = [0] * num_text + list(frame_of_token)
        for query in range(num_tokens):
            for key in range(num_tokens):
                is_later = is_causal and frame[key] > frame[query]
                result[b, 0, query, key] = is_pad[query] == is_pad[key] and not is_later
    return result


def run_reference(model, x, t, positions, cond, is_causal=False, patch="p q c"):
    """Run the reference; its latents carry a gradient graph of the weights.

    A patch is in the order `patch`: Pyramid-Flow's, or "c p q", diffusers' pipelines'.

    Returns:
        [b, f, h, w, c], a torch tensor.
    """
    _, num_frames, height, width, _ = x.shape
    rows, columns = height // PATCH, width // PATCH
    tokens = rearrange(x, f"b f (r p) (s q) c -> b (f r s) ({patch})", p=PATCH, q=PATCH)
    grid = np.meshgrid(positions, np.arange(rows), np.arange(columns), indexing="ij")
    ids = np.stack(grid, axis=-1).reshape(-1, 3).astype(np.float32)
    mask = visible(cond["text_mask"], ids[:, 0], is_causal)
    output = model(
        hidden_states=torch.from_numpy(tokens),
        encoder_hidden_states=torch.from_numpy(cond["text"]),
        pooled_projections=torch.from_numpy(cond["pooled"]),
        timestep=torch.from_numpy(t) / 1000,
        img_ids=torch.from_numpy(ids),
        txt_ids=torch.zeros(cond["text"].shape[1], 3),
        joint_attention_kwargs={"attention_mask": torch.from_numpy(mask)},
    ).sample
    return rearrange(
        output, f"b (f r s) ({patch}) -> b f (r p) (s q) c",
        f=num_frames, r=rows, s=columns, p=PATCH, q=PATCH,
    )  # fmt: skip
