"""Open-Sora 1.2's video autoencoder in PyTorch, written from its description, for parity tests.

The image part is diffusers' AutoencoderKL. Names of modules are those of the published file.
"""

import json

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional

from tpdiff_jax.models.image_vae.config import ImageVAEConfig
from tpdiff_jax.models.open_sora_vae.config import OpenSoraVAEConfig

SHIFT, SCALE = (-0.1, 0.4, 0.2), (3.0, 2.0, 2.5)
CONFIG = OpenSoraVAEConfig(
    image=ImageVAEConfig(latent_channels=3, level_channels=(4, 8), level_depth=1, num_groups=2),
    width=4, multipliers=(1, 2, 2), halves_frames=(False, True), level_depth=2, num_groups=2,
    chunk_frames=5, shift=SHIFT, scale=SCALE,
)  # fmt: skip
FIELDS = {
    "model_type": "VideoAutoencoderPipeline",
    "micro_frame_size": 5,
    "shift": SHIFT,
    "scale": SCALE,
    "vae_temporal": {
        "type": "VAE_Temporal", "filters": 4, "num_res_blocks": 2,
        "channel_multipliers": [1, 2, 2], "temporal_downsample": [False, True], "num_groups": 2,
    },
    "vae_2d": {
        "type": "VideoAutoencoderKL", "latent_channels": 3, "block_out_channels": [4, 8],
        "layers_per_block": 1, "norm_num_groups": 2,
    },
}  # fmt: skip


class Causal(nn.Module):
    """A convolution over time whose input starts with enough zeros."""

    def __init__(self, d_in, d_out, side=3, stride=1, bias=True):
        super().__init__()
        self.conv = nn.Conv3d(d_in, d_out, side, (stride, 1, 1), bias=bias)
        self.before, self.around = side - stride, side // 2

    def forward(self, x):
        sides = (self.around,) * 4
        return self.conv(functional.pad(x, (*sides, self.before, 0)))


class Residual(nn.Module):
    def __init__(self, d_in, d_out, groups):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, d_in), nn.GroupNorm(groups, d_out)
        self.conv1 = Causal(d_in, d_out, bias=False)
        self.conv2 = Causal(d_out, d_out, bias=False)
        self.conv3 = Causal(d_in, d_out, side=1, bias=False) if d_in != d_out else nn.Identity()

    def forward(self, x):
        y = self.conv1(functional.silu(self.norm1(x)))
        y = self.conv2(functional.silu(self.norm2(y)))
        return y + self.conv3(x)


def residuals(d_in, d_out, config):
    widths = [d_in] + [d_out] * config.level_depth
    return nn.ModuleList(
        Residual(a, b, config.num_groups) for a, b in zip(widths, widths[1:], strict=False)
    )


class TimeEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        z = config.image.latent_channels
        widths = [config.width * m for m in config.multipliers]
        self.conv_in = Causal(z, widths[0], bias=False)
        self.block_res_blocks = nn.ModuleList(
            residuals(widths[max(i - 1, 0)], width, config) for i, width in enumerate(widths)
        )
        self.conv_blocks = nn.ModuleList(
            Causal(width, width, stride=2) if halves else nn.Identity()
            for width, halves in zip(widths, config.halves_frames, strict=False)
        )
        self.res_blocks = residuals(widths[-1], widths[-1], config)
        self.norm1 = nn.GroupNorm(config.num_groups, widths[-1])
        self.conv2 = Causal(widths[-1], 2 * z, side=1)

    def forward(self, x):
        x = self.conv_in(x)
        for i, blocks in enumerate(self.block_res_blocks):
            for block in blocks:
                x = block(x)
            if i < len(self.conv_blocks):
                x = self.conv_blocks[i](x)
        for block in self.res_blocks:
            x = block(x)
        return self.conv2(functional.silu(self.norm1(x)))


class TimeDecoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        z = config.image.latent_channels
        widths = [config.width * m for m in config.multipliers]
        self.halves = config.halves_frames
        self.conv1 = Causal(z, widths[-1])
        self.res_blocks = residuals(widths[-1], widths[-1], config)
        deeper = [*widths[1:], widths[-1]]
        self.block_res_blocks = nn.ModuleList(
            residuals(a, b, config) for a, b in zip(deeper, widths, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            Causal(width, 2 * width) if halves else nn.Identity()
            for width, halves in zip(widths[1:], config.halves_frames, strict=True)
        )
        self.norm1 = nn.GroupNorm(config.num_groups, widths[0])
        self.conv_out = Causal(widths[0], z)

    def forward(self, x):
        x = self.conv1(x)
        for block in self.res_blocks:
            x = block(x)
        for i in reversed(range(len(self.block_res_blocks))):
            for block in self.block_res_blocks[i]:
                x = block(x)
            if i and self.halves[i - 1]:
                x = self.conv_blocks[i - 1](x)
                b, _, f, h, w = x.shape
                x = x.view(b, -1, 2, f, h, w).permute(0, 1, 3, 2, 4, 5).reshape(b, -1, 2 * f, h, w)
        return self.conv_out(functional.silu(self.norm1(x)))


class OpenSoraVAEReference(nn.Module):
    def __init__(self, config):
        super().__init__()
        z, image = config.image.latent_channels, config.image
        levels = len(image.level_channels)
        self.config, self.factor = config, 2 ** sum(config.halves_frames)
        self.spatial_vae, self.temporal_vae = nn.Module(), nn.Module()
        self.spatial_vae.module = AutoencoderKL(
            latent_channels=z, block_out_channels=image.level_channels,
            layers_per_block=image.level_depth, norm_num_groups=image.num_groups,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
        )  # fmt: skip
        self.temporal_vae.encoder = TimeEncoder(config)
        self.temporal_vae.quant_conv = Causal(2 * z, 2 * z, side=1)
        self.temporal_vae.post_quant_conv = Causal(z, z, side=1)
        self.temporal_vae.decoder = TimeDecoder(config)
        for name in ("shift", "scale"):
            self.register_buffer(name, torch.tensor(getattr(config, name)).view(1, z, 1, 1, 1))

    def encode(self, x):
        """Pixels [c, f, h, w] -> means of the latents [z, f', h', w'], of unit scale."""
        frames = self.spatial_vae.module.encode(x.transpose(0, 1)).latent_dist.mode() * 0.18215
        chunks = []
        for chunk in frames.transpose(0, 1)[None].split(self.config.chunk_frames, dim=2):
            missing = -chunk.shape[2] % self.factor
            chunk = functional.pad(chunk, (0, 0, 0, 0, missing, 0))
            moments = self.temporal_vae.quant_conv(self.temporal_vae.encoder(chunk))
            chunks.append(moments.chunk(2, dim=1)[0])
        return ((torch.cat(chunks, dim=2) - self.shift) / self.scale)[0]

    def decode(self, z):
        """Latents [z, f', h', w'] -> pixels [c, f, h, w]."""
        frames, chunk_frames = [], self.config.chunk_frames
        z = z[None] * self.scale + self.shift
        for chunk in z.split(-(-chunk_frames // self.factor), dim=2):
            chunk = self.temporal_vae.decoder(self.temporal_vae.post_quant_conv(chunk))
            frames.append(chunk[0, :, -chunk_frames:])
        frames = torch.cat(frames, dim=1).transpose(0, 1)
        return self.spatial_vae.module.decode(frames / 0.18215).sample.transpose(0, 1)


def make_reference(seed=0):
    """Return the reference with random weights, scales of norms near 1."""
    model, generator = OpenSoraVAEReference(CONFIG), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = "norm" in name and name.endswith("weight")
            parameter.copy_(1.0 + 0.1 * noise if is_scale else 0.2 * noise)
    return model.eval()


def write_open_sora_vae(folder, seed=0):
    """Write it as the published folder is laid out."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        n: np.ascontiguousarray(t.numpy()) for n, t in make_reference(seed).state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(FIELDS))
    return folder
