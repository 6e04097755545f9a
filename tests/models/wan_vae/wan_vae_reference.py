"""diffusers' AutoencoderKLWan on small random weights, as the reference for parity tests.

Weights are drawn so that every part matters: scales of norms near 1, everything else with standard
deviation 0.2 or of unit gain; the decoder's last convolution is small, so that little is clipped.
"""

import jax
import numpy as np
import torch
from diffusers import AutoencoderKLWan

from tpdiff_jax.models.wan_vae.config import WanVAEConfig
from tpdiff_jax.models.wan_vae.network import WanVAE
from tpdiff_jax.models.wan_vae.weights import wan_vae_rows
from tpdiff_jax.weights.key_table import import_params, places

CONFIG = WanVAEConfig(
    latent_channels=4, level_channels=(8, 16, 16, 16), level_depth=1,
    latents_mean=(0.5, -1.0, 0.0, 2.0), latents_std=(2.0, 0.5, 1.0, 3.0),
)  # fmt: skip


def make_reference(config=CONFIG, seed=0):
    """Return the reference autoencoder of `config` with random weights."""
    base = config.level_channels[0]
    model = AutoencoderKLWan(
        base_dim=base, z_dim=config.latent_channels,
        dim_mult=[channels // base for channels in config.level_channels],
        num_res_blocks=config.level_depth, temperal_downsample=list(config.halves_time),
        latents_mean=list(config.latents_mean), latents_std=list(config.latents_std),
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("gamma"):
                parameter.copy_(1.0 + 0.1 * noise)
            elif name.startswith("decoder.conv_out"):
                parameter.copy_(0.07 * noise)
            else:
                gain = max(1, np.prod(parameter.shape[1:])) ** -0.5
                parameter.copy_(max(0.2, gain) * noise)
    return model


def to_params(tensors, config=CONFIG):
    """Return a tree of parameters, or of their gradients, from tensors by diffusers' names."""
    shapes = jax.eval_shape(WanVAE(config).init, jax.random.key(0))
    found = places(wan_vae_rows(config), shapes)
    assert found.keys() == tensors.keys()
    return import_params(found, lambda name: tensors[name].detach().numpy(), shapes)


def to_torch(x):
    """[b, f, h, w, c] -> [b, c, f, h, w]."""
    return torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())


def from_torch(x):
    """[b, c, f, h, w] -> [b, f, h, w, c]."""
    return np.moveaxis(x.detach().numpy(), 1, -1)
