"""The video DiT in PyTorch, as one would write it there, with the parameters of ours.

Fused attention, one module a block: the network of `tpdiff_jax/models/video_dit/network.py` again,
with factorised attention and without labels.
"""

import argparse
import math
from typing import Any

import jax
import numpy as np
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from bench.pytorch_twin import Inputs, Normal, Twin, to_device
from tpdiff_jax.models import VideoDiT, VideoDiTConfig
from tpdiff_jax.models.layers.patching import patch_positions
from tpdiff_jax.models.video_dit.network import position_features, rotary_tables
from tpdiff_jax.types import Params, Positions, Shape

NUM_FEATURES, MAX_PERIOD = 256, 10_000.0


def make_network(options: argparse.Namespace) -> VideoDiT:
    """Return our network: heads of 64 channels and patches of 8 x 8, as in configs/flow.py.

    Raises:
        ValueError: when it cannot be built.
    """
    config = VideoDiTConfig(
        hidden_size=64 * options.heads,
        num_heads=options.heads,
        depth=sum(options.blocks),
        patch_size=8,
        qk_norm=False,
        num_classes=0,
        dtype=options.dtype,
        scan_layers=options.scan,
    )
    return VideoDiT(config)


def make_cond(config: VideoDiTConfig, normal: Normal) -> None:
    """No condition."""


def sinusoids(x: torch.Tensor) -> torch.Tensor:
    """[b] -> [b, 256], cosines first."""
    half = NUM_FEATURES // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, device=x.device) / half)
    angles = x[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate interleaved pairs of [..., n, l, e]."""
    first, second = x[..., 0::2], x[..., 1::2]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.stack(turned, dim=-1).flatten(-2).type_as(x)


def modulated(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Layer norm without parameters, then x (1 + scale) + shift; [b, f, l, d], [b, d]."""
    normed = functional.layer_norm(x, x.shape[-1:], eps=1e-6)
    return normed * (1.0 + scale[:, None, None]) + shift[:, None, None]


class Embedding(nn.Module):
    """Two linear layers on sinusoids."""

    def __init__(self, dim: int):
        super().__init__()
        self.inner, self.outer = nn.Linear(NUM_FEATURES, dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b] -> [b, d]."""
        return self.outer(functional.silu(self.inner(sinusoids(x))))


class Attention(nn.Module):
    """Self-attention with rotated queries and keys."""

    def __init__(self, config: VideoDiTConfig):
        super().__init__()
        d = config.hidden_size
        self.num_heads = config.num_heads
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: torch.Tensor, table: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """[b, ..., l, d] over l."""
        batch = x.shape[:-2]
        heads = rearrange(self.qkv(x), "... l (p n e) -> p (...) n l e", p=3, n=self.num_heads)
        q, k = rotate(heads[0], *table), rotate(heads[1], *table)
        y = functional.scaled_dot_product_attention(q, k, heads[2])
        return self.out(rearrange(y, "b n l e -> b l (n e)").reshape(*batch, *x.shape[-2:]))


class TorchBlock(nn.Module):
    """Attention in space, in time, and a feed-forward layer."""

    def __init__(self, config: VideoDiTConfig):
        super().__init__()
        d = config.hidden_size
        self.modulation = nn.Linear(d, 9 * d)
        self.attention = nn.ModuleDict({axis: Attention(config) for axis in ("space", "time")})
        self.feed_forward = nn.ModuleDict(
            {
                "inner": nn.Linear(d, config.feed_forward_dim),
                "outer": nn.Linear(config.feed_forward_dim, d),
            }
        )

    def forward(self, x: torch.Tensor, condition: torch.Tensor, tables: Any) -> torch.Tensor:
        """[b, f, l, d] -> the same."""
        parts = self.modulation(condition).chunk(9, dim=-1)
        for i, axis in enumerate(("space", "time", None)):
            shift, scale, gate = parts[3 * i : 3 * i + 3]
            y = modulated(x, shift, scale)
            if axis == "space":
                y = self.attention["space"](y, tables["space"])
            elif axis == "time":
                y = self.attention["time"](y.transpose(1, 2), tables["time"]).transpose(1, 2)
            else:
                hidden = functional.gelu(self.feed_forward["inner"](y), approximate="tanh")
                y = self.feed_forward["outer"](hidden)
            x = x + gate[:, None, None] * y
        return x


class TorchVideoDiT(nn.Module):
    """The whole network; called with what `arguments` returns."""

    def __init__(self, config: VideoDiTConfig):
        super().__init__()
        d = config.hidden_size
        self.patch_size = config.patch_size
        self.stem = nn.ModuleDict(
            {"patch": nn.Linear(config.patch_dim, d), "time": Embedding(d), "stride": Embedding(d)}
        )
        self.blocks = nn.ModuleList(TorchBlock(config) for _ in range(config.depth))
        self.head = nn.ModuleDict(
            {"modulation": nn.Linear(d, 2 * d), "patch": nn.Linear(d, config.patch_dim)}
        )

    def forward(
        self, x_t: torch.Tensor, timestep: torch.Tensor, places: torch.Tensor, tables: Any
    ) -> "Output":
        """[b, f, h, w, c] -> the same, as diffusers' networks hand it back."""
        p, rows = self.patch_size, x_t.shape[2] // self.patch_size
        patches = rearrange(x_t, "b f (r p) (s q) c -> b f (r s) (p q c)", p=p, q=p)
        x = self.stem["patch"](patches) + places
        octave = torch.zeros(1, device=x_t.device)  # of stride 1
        condition = functional.silu(self.stem["time"](timestep) + self.stem["stride"](octave))
        for block in self.blocks:
            x = block(x, condition, tables)
        shift, scale = self.head["modulation"](condition).chunk(2, dim=-1)
        out = self.head["patch"](modulated(x, shift, scale))
        video = rearrange(out, "b f (r s) (p q c) -> b f (r p) (s q) c", r=rows, p=p, q=p)
        return Output(video)


class Output:
    """What diffusers' networks return: `sample` is the tensor."""

    def __init__(self, sample: torch.Tensor):
        self.sample = sample


def make_model(config: VideoDiTConfig, params: Params) -> nn.Module:
    """Return the network in PyTorch with our parameters."""
    model = TorchVideoDiT(config)
    tensors = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = ".".join(str(key.key) for key in path)
        if name.startswith(("stem.label", "stem.stride.space")):  # what no call here asks for
            continue
        name = name.replace("stem.stride.time.", "stem.stride.")
        group, _, rest = name.partition(".")
        values = np.asarray(leaf)
        for index, value in enumerate(values if group == "blocks" else [values]):
            full = f"blocks.{index}.{rest}" if group == "blocks" else name
            is_kernel = full.endswith(".kernel")
            full = full.removesuffix(".kernel") + ".weight" if is_kernel else full
            full = full.replace(".scale", ".weight")
            tensors[full] = torch.from_numpy((value.T if is_kernel else value).copy())
    model.load_state_dict(tensors, strict=True)
    return model


def arguments(config: VideoDiTConfig, inputs: Inputs, device: torch.device) -> dict[str, Any]:
    """Return the arguments of the PyTorch network for a batch."""
    static = Positions(*(np.asarray(axis) for axis in inputs.positions))
    patches = patch_positions(static, config.patch_size)
    tables = {
        axis: tuple(to_device(part, device) for part in table)
        for axis, table in rotary_tables(config, patches).items()
    }
    places = position_features(patches.rows, patches.columns, config.hidden_size)
    return {
        "x_t": to_device(inputs.x_t, device),
        "timestep": to_device(inputs.t, device),
        "places": to_device(places, device),
        "tables": tables,
    }


def to_video(config: VideoDiTConfig, video: torch.Tensor, shape: Shape) -> np.ndarray:
    """Return the output as our network's, [b, f, h, w, c]."""
    return video.detach().float().cpu().numpy()


VIDEO_DIT = Twin(
    title="Video DiT",
    network=make_network,
    cond=make_cond,
    make_model=make_model,
    arguments=arguments,
    to_video=to_video,
    optimizer="muon",
)
