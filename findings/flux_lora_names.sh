#!/usr/bin/env bash
# diffusers 0.42.1 (peft 0.21.2, transformers 5.24.0, torch 2.13.0).
#
# Good guess: a Flux LoRA under `lora_transformer_*` names, the transformer's own module names with
#   underscores, is read like the same LoRA under dotted names: every layer keeps its own factors.
# What happens: only names of attention layers are spelled out. Feed-forward, norm, proj_mlp and proj_out
#   layers of a block all get the block's own name, and so write over each other. Which of them is left
#   depends on the order of a set of strings. No warning from `lora_state_dict`; loading raises a KeyError
#   about a weight that no file and no model has.
# Seen: of 28 layers' factors, all of a model of one double and one single block, 21 come back: six of the
#   double block and three of the single one share a name each. Different processes keep different ones.
#   Under dotted names (control) all 28 come back, and load.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile \
    diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 torch==2.13.0
cat > "$dir/measure.py" <<'PY'
import sys

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

torch.manual_seed(0)
model = FluxTransformer2DModel(
    in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
    joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
)
layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
assert len(layers) == 28

flat, dotted = {}, {}
for number, (name, layer) in enumerate(layers.items()):
    down = torch.full((2, layer.in_features), float(number))  # says whose it is
    up = torch.ones(layer.out_features, 2)
    flat["lora_transformer_" + name.replace(".", "_") + ".lora_down.weight"] = down
    flat["lora_transformer_" + name.replace(".", "_") + ".lora_up.weight"] = up
    flat["lora_transformer_" + name.replace(".", "_") + ".alpha"] = torch.tensor(2.0)  # the rank: no scaling
    dotted["transformer." + name + ".lora_A.weight"] = down
    dotted["transformer." + name + ".lora_B.weight"] = up


def kept(state):
    found = FluxPipeline.lora_state_dict(dict(state))
    return {k[len("transformer."):-len(".lora_A.weight")]: v for k, v in found.items() if ".lora_A." in k}


names = list(layers)
flat_kept, dotted_kept = kept(flat), kept(dotted)
survivors = [names[int(flat_kept[b][0, 0])] for b in ("transformer_blocks.0", "single_transformer_blocks.0")]
if sys.argv[1:] == ["survivors"]:
    print(*survivors)
    sys.exit()

assert "transformer_blocks.0" in flat_kept and "single_transformer_blocks.0" in flat_kept
print(f"{len(names)} layers: {len(dotted_kept)} kept under dotted names, {len(flat_kept)} under flat names")
assert set(dotted_kept) == set(names)
assert len(flat_kept) == 21
lost = sorted(set(names) - set(flat_kept))
print("without a key of their own:", *lost, sep="\n  ")
assert len(lost) == 9 and not any(".attn." in name for name in lost)
assert "transformer_blocks.0.attn.to_q" in flat_kept and "norm_out.linear" in flat_kept
one = {k: v for k, v in flat.items() if k.startswith("lora_transformer_transformer_blocks_0_ff_net_2.")}
assert list(kept(one)) == ["transformer_blocks.0"], "alone in its file, a feed-forward layer fares no better"

pipe = FluxPipeline(
    scheduler=FlowMatchEulerDiscreteScheduler(), vae=None, text_encoder=None, tokenizer=None,
    text_encoder_2=None, tokenizer_2=None, transformer=model,
)
pipe.load_lora_weights(dict(dotted))
assert sum(hasattr(layer, "lora_A") for layer in model.modules()) == len(names)
pipe.unload_lora_weights()
try:
    pipe.load_lora_weights(dict(flat))
except KeyError as error:
    print("loading the flat names:", repr(error))
else:
    raise AssertionError("the flat names loaded")
PY
export HF_HUB_OFFLINE=1
"$dir/venv/bin/python" -W ignore "$dir/measure.py" 2> "$dir/log" || { cat "$dir/log"; exit 1; }
for seed in 1 3; do
    PYTHONHASHSEED=$seed "$dir/venv/bin/python" -W ignore "$dir/measure.py" survivors 2> "$dir/log" ||
        { cat "$dir/log"; exit 1; }
done | tee "$dir/survivors"
test "$(sort -u "$dir/survivors" | wc -l)" -gt 1
echo "a different set of layers is left in different processes"
