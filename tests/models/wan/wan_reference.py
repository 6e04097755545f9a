"""diffusers' WanTransformer3DModel on small random weights, as the reference for parity tests.

Weights are drawn so that every part matters: matrices and biases with standard deviation 0.2, the
scales of norms near 1, and nothing left at the zero that training starts from. With weaker weights
an error in the temporal positions would vanish below any tolerance.
"""

import numpy as np
import torch
from diffusers import WanTransformer3DModel

from tpdiff_jax.models import WanConfig
from tpdiff_jax.models.wan.weights import abstract_wan_params, wan_rows
from tpdiff_jax.weights.key_table import import_params, places

PATCH, CHANNELS, HEIGHT, WIDTH = 2, 4, 4, 6
NUM_TEXT = 5
CONFIG = WanConfig(
    channels=CHANNELS, patch_size=PATCH, num_heads=2, head_dim=24, depth=2, feed_forward_dim=64,
    num_time_features=32, text_dim=16, num_text_tokens=NUM_TEXT,
)  # fmt: skip


def make_reference(seed=0):
    """Return the reference network with random weights."""
    model = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=24, in_channels=CHANNELS, out_channels=CHANNELS,
        text_dim=16, freq_dim=32, ffn_dim=64, num_layers=2,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = name.endswith(("norm_q.weight", "norm_k.weight", "norm2.weight"))
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1.0 + 0.1 * noise if is_scale else 0.2 * noise)
    return model


def to_params(tensors, config=CONFIG):
    """Tensors of the reference, or their gradients, as a tree of our parameters."""
    shapes = abstract_wan_params(config)
    found = places(wan_rows(config, "diffusers"), shapes)
    return import_params(found, lambda name: tensors[name].detach().numpy(), shapes)


def make_inputs(num_frames, seed=0):
    """Latents, times and a condition whose second prompt ends in zeros.

    The times are small: at 1000 single precision leaves the sinusoids of either network 5e-5 from
    the truth, which is more than the tolerance of the parity tests.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    text = normal(2, NUM_TEXT, 16)
    text[1, 2:] = 0.0
    x = normal(2, num_frames, HEIGHT, WIDTH, CHANNELS)
    return x, np.array([7.0, 64.0], np.float32), {"text": text}


def run_reference(model, x, t, positions, cond):
    """Run the reference with the rows of its rotary table that stand at `positions`.

    Args:
        model: the reference.
        x: latents, [b, f, h, w, c], a torch tensor.
        t: network times, numpy.
        positions: of the frames, whole numbers.
        cond: {"text": numpy}.

    Returns:
        [b, f, h, w, c], a torch tensor.
    """
    rows, rope = torch.as_tensor(positions, dtype=torch.long), model.rope
    tables = {"freqs_cos": rope.freqs_cos, "freqs_sin": rope.freqs_sin}
    try:
        for name, table in tables.items():
            gathered = table.clone()
            # Only the channels of the frames' axis; rows and columns stay at 0, 1, 2, ...
            gathered[: len(rows), : rope.t_dim] = table[rows, : rope.t_dim]
            setattr(rope, name, gathered)
        output = model(
            hidden_states=x.permute(0, 4, 1, 2, 3),
            timestep=torch.from_numpy(t),
            encoder_hidden_states=torch.from_numpy(cond["text"]),
        ).sample
    finally:
        for name, table in tables.items():
            setattr(rope, name, table)
    return output.permute(0, 2, 3, 4, 1)
