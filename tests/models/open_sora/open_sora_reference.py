"""Open-Sora's transformers in PyTorch, written from their description, for parity tests.

Names of modules are those of the published files. One sample at a time, no packing, no kernels:
attention is softmax of products, a text is cut to its visible tokens, tables of positions are sines
and cosines of plain loops' numbers. Weights are drawn so that every part matters: a large standard
deviation, scales of norms near 1, nothing left at the zero that training starts from.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tpdiff_jax.models import OpenSoraConfig
from tpdiff_jax.models.open_sora.weights import abstract_open_sora_params, open_sora_rows
from tpdiff_jax.weights.key_table import import_params, places

PATCH, CHANNELS, HEIGHT, WIDTH = 2, 4, 4, 6
NUM_TEXT, TEXT_DIM, FPS = 5, 12, 16.0
SMALL = {
    "channels": CHANNELS, "patch_size": PATCH, "hidden_size": 48, "num_heads": 4, "depth": 2,
    "mlp_ratio": 1.5, "text_dim": TEXT_DIM, "num_text_tokens": NUM_TEXT, "base_side": 8,
}  # fmt: skip
STD = {"stdit": 0.15, "stdit3": 0.2}
"""1.0 attends over time without a norm: at 0.2 single precision is 5e-4 from double."""
CONFIGS = {
    "stdit": OpenSoraConfig(**SMALL, form="stdit", time_scale=2 / 3),
    "stdit3": OpenSoraConfig(**SMALL, form="stdit3", qk_norm=True, fps=FPS),
}


def waves(positions, dim):
    """All sines, then all cosines, of positions times 10000^(-j / half)."""
    half = dim // 2
    rates = [10_000.0 ** (-j / half) for j in range(half)]
    angles = [[float(p) * rate for rate in rates] for p in positions]
    rows = [[*map(math.sin, row), *map(math.cos, row)] for row in angles]
    return torch.tensor(rows, dtype=torch.float32)


def scalar_features(values):
    """Cosines first: of noise times and frame rates."""
    features = waves(values.tolist(), 256)
    return torch.cat([features[:, 128:], features[:, :128]], dim=1)


class UnitNorm(nn.Module):
    """Root-mean-square norm of a head."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return self.weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def attend(q, k, v):
    """[..., l, n, e] each -> [..., l, n e]."""
    scores = torch.einsum("...qne,...kne->...nqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("...nqk,...kne->...qne", scores.softmax(-1), v).flatten(-2)


def turned(x, positions, rates):
    """Turn the pairs (0, 1), (2, 3), ... of each head as complex numbers; [..., l, n, e]."""
    numbers = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    angles = torch.as_tensor(positions, dtype=torch.float32)[:, None] * rates
    factors = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(numbers * factors[:, None, :]).flatten(-2)


class SelfAttention(nn.Module):
    def __init__(self, dim, heads, has_norm):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads
        self.q_norm = UnitNorm(dim // heads) if has_norm else nn.Identity()
        self.k_norm = UnitNorm(dim // heads) if has_norm else nn.Identity()

    def forward(self, x, positions=None, rates=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        q, k = self.q_norm(q), self.k_norm(k)
        if positions is not None:
            q, k = turned(q, positions, rates), turned(k, positions, rates)
        return self.proj(attend(q, k, v))


class CrossAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.q_linear, self.kv_linear = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj, self.heads = nn.Linear(dim, dim), heads

    def forward(self, x, text):
        """Tokens [l, d] of one sample, visible text [m, d]."""
        q = self.q_linear(x).unflatten(-1, (self.heads, -1))
        k, v = self.kv_linear(text).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return self.proj(attend(q, k, v))


class Mlp(nn.Module):
    def __init__(self, dim, hidden, out):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, out)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


def normed(x, shift, scale):
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Block(nn.Module):
    """Tokens of one sample, [f, l, d]; `kind` is both, space or time."""

    def __init__(self, config, kind):
        super().__init__()
        dim, heads, self.kind = config.hidden_size, config.num_heads, kind
        self.attn = SelfAttention(dim, heads, config.qk_norm)
        self.cross_attn = CrossAttention(dim, heads)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), dim)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, dim))
        if kind == "both":
            self.attn_temp = SelfAttention(dim, heads, config.qk_norm)

    def forward(self, x, text, of_time, added=None, positions=None, rates=None):
        shift, scale, gate, shift_2, scale_2, gate_2 = self.scale_shift_table + of_time
        y = normed(x, shift, scale)
        if self.kind == "time":
            y = self.attn(y.transpose(0, 1), positions, rates).transpose(0, 1)
        else:
            y = self.attn(y)
        x = x + gate * y
        if self.kind == "both":  # what is added is seen by this attention alone, without a norm
            y = x if added is None else x + added[:, None]
            x = x + gate * self.attn_temp(y.transpose(0, 1)).transpose(0, 1)
        x = x + self.cross_attn(x.flatten(0, 1), text).view_as(x)
        return x + gate_2 * self.mlp(normed(x, shift_2, scale_2))


class Scalar(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, values):
        return self.mlp(scalar_features(values))


class OpenSoraReference(nn.Module):
    """Either network; `tables` are the frames of the two tables that 1.0's files hold."""

    def __init__(self, config, tables=None):
        super().__init__()
        dim, self.shape = config.hidden_size, config
        out = CHANNELS * (2 if config.has_variance else 1)
        self.x_embedder, self.y_embedder = nn.Module(), nn.Module()
        sides = (1, config.patch_size, config.patch_size)
        self.x_embedder.proj = nn.Conv3d(config.channels, dim, sides, sides)
        self.t_embedder = Scalar(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.y_embedder.y_proj = Mlp(config.text_dim, dim, dim)
        no_text = torch.zeros(config.num_text_tokens, config.text_dim)
        self.y_embedder.register_buffer("y_embedding", no_text)
        self.final_layer = nn.Module()
        self.final_layer.linear = nn.Linear(dim, config.patch_size**2 * out)
        self.final_layer.scale_shift_table = nn.Parameter(torch.zeros(2, dim))
        if config.form == "stdit":
            self.blocks = nn.ModuleList(Block(config, "both") for _ in range(config.depth))
        else:
            self.fps_embedder, self.rope = Scalar(dim), nn.Module()
            head = dim // config.num_heads
            rates = torch.tensor([10_000.0 ** (-2 * j / head) for j in range(head // 2)])
            self.rope.freqs = nn.Parameter(rates, requires_grad=False)
            self.spatial_blocks, self.temporal_blocks = (
                nn.ModuleList(Block(config, kind) for _ in range(config.depth))
                for kind in ("space", "time")
            )
        if tables is not None:
            frames, patches = tables
            self.register_buffer("pos_embed", torch.zeros(1, patches, dim))
            self.register_buffer("pos_embed_temporal", torch.zeros(1, frames, dim))

    def forward(self, x, t, text, mask, positions, fps=FPS, is_null=(False, False), stride=1):
        """Run every sample by itself.

        Args:
            x: latents, [b, f, h, w, c].
            t: noise times, [b].
            text: [b, m, d_text].
            mask: bool [b, m].
            positions: of frames, [f].
            fps: frames a second that the network is told.
            is_null: of each sample, whether the embedding of no text takes the text's place.
            stride: over rows and columns: the full frames are so many times larger.

        Returns:
            [b, f, h, w, output channels], variance included, of Open-Sora's sign.
        """
        rows = zip(x, t, text, mask, is_null, strict=True)
        samples = [self.sample(*row, positions, fps, stride) for row in rows]
        return torch.stack(samples)

    def sample(self, x, t, text, mask, is_null, positions, fps, stride):
        config, dim, patch = self.shape, self.shape.hidden_size, self.shape.patch_size
        tokens = self.x_embedder.proj(x.permute(3, 0, 1, 2)[None])[0]  # [d, f, r, c]
        num_rows, num_columns = tokens.shape[2:]
        tokens = tokens.permute(1, 2, 3, 0).flatten(1, 2)  # [f, l, d]

        # The range of square frames of base_side latents, stretched over frames of this shape.
        height, width = x.shape[1] * stride, x.shape[2] * stride
        full_rows, full_columns = height // patch, width // patch
        side, scale = round((full_rows * full_columns) ** 0.5), (height * width) ** 0.5
        scale = side / (scale / config.base_side)
        middle = (stride - 1) / 2  # a coarse patch stands in the middle of those that it covers
        at_rows = [(r * stride + middle) * scale / full_rows for r in range(num_rows)]
        at_columns = [(c * stride + middle) * scale / full_columns for c in range(num_columns)]
        of_rows, of_columns = waves(at_rows, dim // 2), waves(at_columns, dim // 2)
        places = [torch.cat([of_columns[c], of_rows[r]]) for r in range(num_rows)
                  for c in range(num_columns)]  # fmt: skip
        tokens = tokens + torch.stack(places)

        embedded = self.t_embedder(t[None])[0]
        if config.form == "stdit3":
            embedded = embedded + self.fps_embedder(torch.tensor([fps]))[0]
        of_time = self.t_block(embedded).view(6, dim)
        text = self.y_embedder.y_embedding if is_null else text
        text = self.y_embedder.y_proj(text)[mask]

        if config.form == "stdit":
            added = waves([p / config.time_scale for p in positions], dim)
            for i, block in enumerate(self.blocks):
                tokens = block(tokens, text, of_time, added=added if i == 0 else None)
        else:
            for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
                tokens = spatial(tokens, text, of_time)
                tokens = temporal(tokens, text, of_time, positions=positions, rates=self.rope.freqs)
        shift, scale = self.final_layer.scale_shift_table + embedded
        tokens = self.final_layer.linear(normed(tokens, shift, scale))
        grid = tokens.view(len(tokens), num_rows, num_columns, patch, patch, -1)
        return grid.permute(0, 1, 3, 2, 4, 5).reshape(*x.shape[:3], -1)


def make_reference(form, seed=0):
    """Return the reference network with random weights."""
    model, generator = OpenSoraReference(CONFIGS[form]), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "rope.freqs":
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            is_scale = name.endswith(("q_norm.weight", "k_norm.weight"))
            tensor.copy_(1.0 + 0.1 * noise if is_scale else STD[form] * noise)
    return model


def to_params(tensors, config):
    """Tensors of the reference, or their gradients, as a tree of our parameters."""
    shapes = abstract_open_sora_params(config)
    found = places(open_sora_rows(config), shapes)
    return import_params(found, lambda name: tensors[name].detach().numpy(), shapes)


def make_inputs(num_frames, seed=0):
    """Latents, small noise times, and a text of which 5 and 2 tokens are visible."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    mask = np.arange(NUM_TEXT) < np.array([[NUM_TEXT], [2]])
    x = normal(2, num_frames, HEIGHT, WIDTH, CHANNELS)
    cond = {"text": normal(2, NUM_TEXT, TEXT_DIM), "text_mask": mask}
    return x, np.array([7.0, 64.0], np.float32), cond


def run_reference(model, x, t, positions, cond, **more):
    """Run the reference on numpy inputs, x a torch tensor; the part and sign that we predict."""
    output = model(
        x, torch.from_numpy(t), torch.from_numpy(cond["text"]),
        torch.from_numpy(cond["text_mask"]), positions, **more,
    )  # fmt: skip
    sign = -1.0 if model.shape.form == "stdit3" else 1.0
    return sign * output[..., :CHANNELS]
