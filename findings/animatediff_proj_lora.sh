#!/usr/bin/env bash
# diffusers 0.42.1, peft 0.21.2 (torch 2.13.0).
#
# Good guess: a LoRA on any linear layer of a UNetMotionModel runs, its motion modules' `proj_in` and
#   `proj_out` among them.
# What happens: motion modules call these two as `proj_in(input=...)`. That is torch's own name for the
#   argument, but peft's layer around it calls it `x`, and so the forward pass raises a TypeError. The
#   adapter is added without complaint, and neither switching it off nor merging it helps.
# Seen: proj_in and proj_out raise, with the adapter on, off and merged. Controls: to_q and the feed-forward
#   layer of the same motion module run and change the output.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile \
    diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 torch==2.13.0
HF_HUB_OFFLINE=1 "$dir/venv/bin/python" -W ignore - <<'PY'
import torch
from diffusers import UNetMotionModel
from peft import LoraConfig
from peft.tuners.lora import Linear

PLACE = "down_blocks.0.motion_modules.0."


def result(layer, state):
    """How far the output moves, or the error's text."""
    torch.manual_seed(0)
    unet = UNetMotionModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlockMotion",), up_block_types=("CrossAttnUpBlockMotion",),
        num_attention_heads=2, motion_num_attention_heads=2,
    ).eval()
    video, text = torch.randn(1, 4, 3, 8, 8), torch.randn(3, 5, 8)

    @torch.no_grad()
    def output():
        return unet(video, torch.tensor([5]), text).sample

    before = output()
    unet.add_adapter(LoraConfig(r=2, target_modules=[PLACE + layer], init_lora_weights=False))
    found = unet.get_submodule(PLACE + layer)
    assert isinstance(found, Linear)
    if state == "off":
        unet.disable_adapters()
    if state == "merged":
        unet.fuse_lora()
        assert found.merged
    try:
        return (output() - before).abs().max().item()
    except TypeError as error:
        return str(error)


for layer in ("proj_in", "proj_out", "transformer_blocks.0.attn1.to_q", "transformer_blocks.0.ff.net.2"):
    for state in ("on", "off", "merged"):
        found = result(layer, state)
        print(f"{PLACE}{layer}, adapter {state}: {found}")
        if layer.startswith("proj"):
            assert isinstance(found, str) and "'x'" in found
        elif state == "off":
            assert found < 1e-5
        else:
            assert found > 1e-4
PY
