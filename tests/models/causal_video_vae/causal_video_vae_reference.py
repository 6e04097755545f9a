"""The causal video autoencoder once more, in PyTorch, as plain functions of published tensors.

Tensors are looked up by their published names; layout is PyTorch's, [b, c, f, h, w]. Nothing is
shared with the network under test.
"""

import numpy as np
import torch
import torch.nn.functional as F

from tpdiff_jax.models.causal_video_vae.config import CausalVideoVAEConfig

CONFIG = CausalVideoVAEConfig(
    latent_channels=3, level_channels=(4, 8, 8), encoder_depth=1, decoder_depth=2, num_groups=2
)
NUM_LEVELS = 3


def random_tensors(shapes, seed=0):
    """Weights of unit gain, so that no part of the network fades; scales of norms near 1."""
    rng, tensors = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        noise = rng.standard_normal(shape).astype(np.float32)
        if "norm" in name:
            tensors[name] = 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
        else:
            tensors[name] = noise / np.sqrt(max(1, np.prod(shape[1:])))
    return {name: torch.from_numpy(tensor.astype(np.float32)) for name, tensor in tensors.items()}


def causal_conv(tensors, name, x, stride=(1, 1, 1)):
    """3 x 3 x 3 convolution, two frames of zeros in front and none behind."""
    weight, bias = tensors[f"{name}.conv.weight"], tensors[f"{name}.conv.bias"]
    if weight.shape[-1] == 1:
        return F.conv3d(x, weight, bias)
    return F.conv3d(F.pad(x, (1, 1, 1, 1, 2, 0)), weight, bias, stride)


def frame_norm(tensors, name, x):
    """Group norm of one frame after the other."""
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    frames = [F.group_norm(x[:, :, i], CONFIG.num_groups, weight, bias, 1e-6)
              for i in range(x.shape[2])]  # fmt: skip
    return torch.stack(frames, dim=2)


def residual_block(tensors, name, x):
    y = causal_conv(tensors, f"{name}.conv1", F.silu(frame_norm(tensors, f"{name}.norm1", x)))
    y = causal_conv(tensors, f"{name}.conv2", F.silu(frame_norm(tensors, f"{name}.norm2", y)))
    has_shortcut = f"{name}.conv_shortcut.conv.weight" in tensors
    return y + (causal_conv(tensors, f"{name}.conv_shortcut", x) if has_shortcut else x)


def frame_attention(tensors, name, x):
    """One head over the latents of a frame."""
    y = frame_norm(tensors, f"{name}.group_norm", x)
    outputs = []
    for i in range(x.shape[2]):
        tokens = y[:, :, i].flatten(2).transpose(1, 2)
        q, k, v = (
            F.linear(tokens, tensors[f"{name}.{part}.weight"], tensors[f"{name}.{part}.bias"])
            for part in ("to_q", "to_k", "to_v")
        )
        weights = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
        out = F.linear(
            weights @ v, tensors[f"{name}.to_out.0.weight"], tensors[f"{name}.to_out.0.bias"]
        )
        outputs.append(out.transpose(1, 2).reshape(x[:, :, i].shape))
    return x + torch.stack(outputs, dim=2)


def middle(tensors, name, x):
    x = residual_block(tensors, f"{name}.resnets.0", x)
    x = frame_attention(tensors, f"{name}.attentions.0", x)
    return residual_block(tensors, f"{name}.resnets.1", x)


def encode(tensors, video):
    """Pixels [b, c, f, h, w] -> moments of the latents."""
    x = causal_conv(tensors, "encoder.conv_in", video)
    for i in range(NUM_LEVELS):
        name = f"encoder.down_blocks.{i}"
        for j in range(CONFIG.encoder_depth):
            x = residual_block(tensors, f"{name}.resnets.{j}", x)
        if i < NUM_LEVELS - 1:
            x = causal_conv(tensors, f"{name}.downsamplers.0.conv", x, (1, 2, 2))
            x = causal_conv(tensors, f"{name}.temporal_downsamplers.0.conv", x, (2, 1, 1))
    x = frame_norm(tensors, "encoder.conv_norm_out", middle(tensors, "encoder.mid_block", x))
    x = causal_conv(tensors, "encoder.conv_out", F.silu(x))
    return causal_conv(tensors, "quant_conv", x)


def decode(tensors, latents):
    """Latents [b, z, f, h, w] -> pixels."""
    x = causal_conv(tensors, "decoder.conv_in", causal_conv(tensors, "post_quant_conv", latents))
    x = middle(tensors, "decoder.mid_block", x)
    for i in range(NUM_LEVELS):
        name = f"decoder.up_blocks.{i}"
        for j in range(CONFIG.decoder_depth):
            x = residual_block(tensors, f"{name}.resnets.{j}", x)
        if i < NUM_LEVELS - 1:
            x = space_to_twice(causal_conv(tensors, f"{name}.upsamplers.0.conv", x))
            x = time_to_twice(causal_conv(tensors, f"{name}.temporal_upsamplers.0.conv", x))
    x = F.silu(frame_norm(tensors, "decoder.conv_norm_out", x))
    return causal_conv(tensors, "decoder.conv_out", x)


def space_to_twice(x):
    """Channel 4 c + 2 p + q becomes channel c at row 2 h + p, column 2 w + q."""
    b, _, f, h, w = x.shape
    result = x.new_zeros(b, x.shape[1] // 4, f, 2 * h, 2 * w)
    for p in range(2):
        for q in range(2):
            result[..., p::2, q::2] = x[:, 2 * p + q :: 4]
    return result


def time_to_twice(x):
    """Channel 2 c + p becomes channel c at frame 2 f + p; the very first frame is dropped."""
    b, _, f, h, w = x.shape
    result = x.new_zeros(b, x.shape[1] // 2, 2 * f, h, w)
    for p in range(2):
        result[:, :, p::2] = x[:, p::2]
    return result[:, :, 1:]
