#!/usr/bin/env bash
# diffusers 0.42.1 (peft 0.21.2, transformers 5.24.0, torch 2.13.0).
#
# Good guess: a Wan LoRA of a part of the network (attention alone, or some of the blocks) can be read under
#   `lora_unet_*` names, which trainers write, as it can under `diffusion_model.*` names.
# What happens: under `lora_unet_*` names it must have query, key, value, output and both feed-forward layers
#   of every block from the first on. Anything less is a KeyError about a tensor that the file need not have;
#   nothing says that the adapter is partial. Blocks are counted, not read: the adapter of block 1 alone is
#   looked for in block 0.
# Seen: all ten layers of both blocks: read. Attention alone: KeyError 'blocks_0_ffn_0.lora_down.weight'.
#   Block 1 alone: KeyError 'blocks_0_self_attn_q.lora_down.weight'. Queries and values alone: KeyError
#   'blocks_0_self_attn_k.lora_down.weight'. The same four under `diffusion_model.*` names (control) are read,
#   each with all of its layers.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile \
    diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 torch==2.13.0
cat > "$dir/measure.py" <<'PY'
import torch
from diffusers import WanPipeline

WIDTH, INNER, RANK = 8, 16, 2
ATTENTION = [f"{kind}_attn.{name}" for kind in ("self", "cross") for name in "qkvo"]
LAYERS = [*ATTENTION, "ffn.0", "ffn.2"]


def factors(block, layer):
    wide_in, wide_out = {"ffn.0": (WIDTH, INNER), "ffn.2": (INNER, WIDTH)}.get(layer, (WIDTH, WIDTH))
    return torch.full((RANK, wide_in), 1.0 + block), torch.ones(wide_out, RANK)


def flat(modules):
    state = {}
    for block, layer in modules:
        name = f"lora_unet_blocks_{block}_" + layer.replace(".", "_")
        state[name + ".lora_down.weight"], state[name + ".lora_up.weight"] = factors(block, layer)
        state[name + ".alpha"] = torch.tensor(float(RANK))  # no scaling
    return state


def dotted(modules):
    state = {}
    for block, layer in modules:
        name = f"diffusion_model.blocks.{block}.{layer}"
        state[name + ".lora_A.weight"], state[name + ".lora_B.weight"] = factors(block, layer)
    return state


def count(state):
    try:
        return sum("lora_A" in name for name in WanPipeline.lora_state_dict(state))
    except KeyError as error:
        return f"KeyError {error}"


parts = {
    "all": [(block, layer) for block in (0, 1) for layer in LAYERS],
    "attention alone": [(block, layer) for block in (0, 1) for layer in ATTENTION],
    "block 1 alone": [(1, layer) for layer in LAYERS],
    "queries and values": [(b, f"{k}_attn.{n}") for b in (0, 1) for k in ("self", "cross") for n in "qv"],
}
found = {}
for name, modules in parts.items():
    found[name] = count(flat(modules)), count(dotted(modules))
    print(f"{name}: {len(modules)} layers; lora_unet_ names: {found[name][0]}; dotted names: {found[name][1]}")
    assert found[name][1] == len(modules)
assert found["all"][0] == 20
assert found["attention alone"][0] == "KeyError 'blocks_0_ffn_0.lora_down.weight'"
assert found["block 1 alone"][0] == "KeyError 'blocks_0_self_attn_q.lora_down.weight'"
assert found["queries and values"][0] == "KeyError 'blocks_0_self_attn_k.lora_down.weight'"
PY
"$dir/venv/bin/python" "$dir/measure.py"
