#!/usr/bin/env bash
# diffusers 0.42.1 (peft 0.21.2, transformers 5.24.0, torch 2.13.0).
#
# Good guess: a LoRA that `save_lora_weights` wrote holds all that was trained, whatever its factors were
#   initialised with: loaded on the same base it gives the trained network's outputs, or an error.
# What happens: with init_lora_weights "pissa" or "olora" peft takes what the factors start from off the
#   base's matrices, and the file holds the factors alone, under the names and in the shapes of any LoRA.
#   Only `init_lora_weights` in the file's metadata tells, and that is written only if
#   `transformer_lora_adapter_metadata` is given. With it, loading repeats the decomposition on the base and is
#   exact. Without it the file loads without a word and is added to matrices that it does not belong to.
# Seen: Flux of one double and one single block, rank 2 on q, k and v, factors moved by noise. Differences
#   from the trained network's output, largest number: with metadata 0 for all; without, 0 for the default and
#   "gaussian", 0.046 for "pissa" and 0.032 for "olora", where the network without any LoRA is off by 0.015
#   and 0.009: worse than not loading it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile \
    diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 torch==2.13.0
cat > "$dir/measure.py" <<'PY'
import copy
import pathlib
import sys

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

FILE = "pytorch_lora_weights.safetensors"
torch.manual_seed(0)
base = FluxTransformer2DModel(
    in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
    joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
).eval()
inputs = {
    "hidden_states": torch.randn(1, 6, 4), "encoder_hidden_states": torch.randn(1, 3, 8),
    "pooled_projections": torch.randn(1, 8), "timestep": torch.tensor([0.5]),
    "img_ids": torch.zeros(6, 3), "txt_ids": torch.zeros(3, 3),
}


@torch.no_grad()
def distance(one, other):
    return float((one(**inputs).sample - other(**inputs).sample).abs().max())


shapes = {}
for start in (True, "gaussian", "pissa", "olora"):
    trained = copy.deepcopy(base)
    trained.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=start))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_" in name:
                parameter += 0.05 * torch.randn_like(parameter)
    off = {}
    for told in (True, False):
        folder = pathlib.Path(sys.argv[1]) / f"{start}_{told}"
        said = {"transformer_lora_adapter_metadata": trained.peft_config["default"].to_dict()} if told else {}
        FluxPipeline.save_lora_weights(
            folder, transformer_lora_layers=get_peft_model_state_dict(trained), **said
        )
        loaded = copy.deepcopy(base)
        loaded.load_lora_adapter(folder, weight_name=FILE, prefix="transformer")
        off[told] = distance(trained, loaded)
        shapes[start, told] = {name: tuple(t.shape) for name, t in load_file(folder / FILE).items()}
    without = distance(trained, base)
    print(f"{start}: with metadata {off[True]:.3f}, without {off[False]:.3f}, no LoRA at all {without:.3f}")
    assert off[True] < 1e-5
    if start in ("pissa", "olora"):
        assert off[False] > 2 * without > 0.01
    else:
        assert off[False] < 1e-5
assert all(of_file == shapes[True, True] for of_file in shapes.values())
print("names and shapes of all files are equal")
PY
"$dir/venv/bin/python" "$dir/measure.py" "$dir" 2> "$dir/err" || { cat "$dir/err"; exit 1; }
! grep -i -E "lora|adapter|metadata" "$dir/err"
