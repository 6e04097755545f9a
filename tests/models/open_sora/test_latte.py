"""STDiT3 agrees with diffusers' Latte wherever the two are the same network.

Latte has a block within frames and a block over time as STDiT3 has: PixArt's blocks. What it lacks
is closed here: norms of queries and keys, frame rate, attention to the text over time, and the
rotation by frames, which is none where all of them stand at 0. What it adds, a table of frames, is
set to zero. Then stem, positions of patches, text, mask, both blocks and head must agree.
"""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import LatteTransformer3DModel

from tests.models.full_size import at
from tests.models.open_sora.open_sora_reference import CONFIGS, NUM_TEXT, TEXT_DIM, to_params
from tpdiff_jax.models import OpenSora
from tpdiff_jax.models.open_sora.weights import abstract_open_sora_params, open_sora_rows
from tpdiff_jax.weights.key_table import places

CONFIG = dataclasses.replace(CONFIGS["stdit3"], qk_norm=False, mlp_ratio=4.0)
SIDE, FRAMES = 8, 3  # frames whose patches stand at 0, 1, 2, 3 in both
STEM = {
    "pos_embed.proj": "x_embedder.proj",
    "adaln_single.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "adaln_single.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "adaln_single.linear": "t_block.1",
    "caption_projection.linear_1": "y_embedder.y_proj.fc1",
    "caption_projection.linear_2": "y_embedder.y_proj.fc2",
    "proj_out": "final_layer.linear",
}
IN_BLOCK = {
    "attn1.to_out.0": "attn.proj",
    "attn2.to_q": "cross_attn.q_linear",
    "attn2.to_out.0": "cross_attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}


def make_latte():
    model = LatteTransformer3DModel(
        num_attention_heads=4, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=48, attention_bias=True, sample_size=SIDE, patch_size=2,
        activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
        norm_elementwise_affine=False, norm_eps=1e-6, caption_channels=TEXT_DIM,
        video_length=FRAMES,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
        model.temp_pos_embed.zero_()
    return model.eval()


def in_open_sora_s_names(latte):
    """Tensors of Latte as those of an STDiT3 that computes the same; what is closed is zero."""
    shapes = abstract_open_sora_params(CONFIG)
    tensors = {n: torch.zeros(p.shape) for n, p in places(open_sora_rows(CONFIG), shapes).items()}
    theirs, used = latte.state_dict(), set()

    def take(*names, kind):
        used.update(f"{name}.{kind}" for name in names)
        return torch.cat([theirs[f"{name}.{kind}"] for name in names])

    for kind in ("weight", "bias"):
        for name, ours in STEM.items():
            tensors[f"{ours}.{kind}"] = take(name, kind=kind)
        for theirs_of, ours_of in (
            ("transformer_blocks", "spatial_blocks"),
            ("temporal_transformer_blocks", "temporal_blocks"),
        ):
            for i in range(2):
                block, mine = f"{theirs_of}.{i}", f"{ours_of}.{i}"
                qkv = [f"{block}.attn1.to_{x}" for x in "qkv"]
                tensors[f"{mine}.attn.qkv.{kind}"] = take(*qkv, kind=kind)
                for name, ours in IN_BLOCK.items():
                    if "attn2" not in name or theirs_of == "transformer_blocks":
                        tensors[f"{mine}.{ours}.{kind}"] = take(f"{block}.{name}", kind=kind)
                if theirs_of == "transformer_blocks":
                    kv = [f"{block}.attn2.to_{x}" for x in "kv"]
                    tensors[f"{mine}.cross_attn.kv_linear.{kind}"] = take(*kv, kind=kind)
                table = f"{block}.scale_shift_table"
                tensors[f"{mine}.scale_shift_table"] = theirs[table]
                used.add(table)
    tensors["final_layer.scale_shift_table"] = theirs["scale_shift_table"]
    # The squares of each row of the table of patches are not learned, nor in our files.
    rest = set(theirs) - used - {"scale_shift_table", "pos_embed.pos_embed"}
    assert not rest, rest
    conv = tensors["x_embedder.proj.weight"]
    tensors["x_embedder.proj.weight"] = conv[:, :, None]  # a patch of one frame
    return tensors


@pytest.mark.parametrize("t", [[7.0, 64.0], [333.0, 744.0]])
def test_a_closed_stdit3_is_latte(t):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, FRAMES, SIDE, SIDE, 4)).astype(np.float32)
    text = rng.standard_normal((2, NUM_TEXT, TEXT_DIM)).astype(np.float32)
    mask = np.arange(NUM_TEXT) < np.array([[NUM_TEXT], [2]])
    latte = make_latte()
    hidden = torch.from_numpy(np.where(mask, 0.0, -1e4).astype(np.float32))
    with torch.no_grad():
        output = latte(
            torch.from_numpy(x).permute(0, 4, 1, 2, 3),
            timestep=torch.tensor(t),
            encoder_hidden_states=torch.from_numpy(text),
            encoder_attention_mask=hidden.repeat_interleave(FRAMES, 0)[:, None],
        ).sample
    expected = -output.permute(0, 2, 3, 4, 1)[..., :4].numpy()  # of Open-Sora's other sign
    params = to_params(in_open_sora_s_names(latte), CONFIG)
    cond = {"text": text, "text_mask": mask}
    result = OpenSora(CONFIG).apply(
        params, x, np.float32(t), at(np.zeros(FRAMES, np.float32), x), (1, 1, 1), cond
    )
    error = np.linalg.norm(result - expected) / np.linalg.norm(expected)
    assert error < 1e-4
