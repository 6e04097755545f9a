#!/usr/bin/env bash
# diffusers 0.42.1, peft 0.21.2 (transformers 5.24.0, torch 2.13.0).
#
# Good guess: a kohya-named LoRA of AnimateDiff's network (`lora_unet_` and the module's name with
#   underscores) reaches motion modules as it reaches the image layers beside them.
# What happens: every underscore becomes a dot, and only those of names that plain image networks have are put
#   back: `motion_modules` turns into `motion.modules`, which no module is called. With a layer of the image
#   network in the same file, loading succeeds without the motion layers (one line in the log); with motion
#   layers alone, it raises an error that the modules were not found.
# Seen: of a file with one layer of each kind, the image layer alone gets an adapter. Control: the same
#   factors under diffusers' own names reach both.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile \
    diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 torch==2.13.0
HF_HUB_OFFLINE=1 "$dir/venv/bin/python" -W ignore - <<'PY'
import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler, UNetMotionModel

IMAGE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
MOTION = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q"

torch.manual_seed(0)
unet = UNetMotionModel(
    sample_size=8, block_out_channels=(8,), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
    down_block_types=("CrossAttnDownBlockMotion",), up_block_types=("CrossAttnUpBlockMotion",),
    num_attention_heads=2, motion_num_attention_heads=2,
)
pipe = AnimateDiffPipeline(
    vae=None, text_encoder=None, tokenizer=None, unet=unet, motion_adapter=None, scheduler=DDIMScheduler()
)
down, up = torch.randn(2, 8), torch.randn(8, 2)


def reached(names, kohya):
    state = {}
    for name in names:
        if kohya:
            flat = "lora_unet_" + name.replace(".", "_")
            state |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
            state[f"{flat}.alpha"] = torch.tensor(2.0)
        else:
            state |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    try:
        pipe.load_lora_weights(state)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    found = [name for name, module in unet.named_modules() if hasattr(module, "lora_A")]
    pipe.unload_lora_weights()
    return found


print("diffusers names, both:", reached([IMAGE, MOTION], kohya=False))
assert reached([IMAGE, MOTION], kohya=False) == [IMAGE, MOTION]
print("kohya names, both:", reached([IMAGE, MOTION], kohya=True))
assert reached([IMAGE, MOTION], kohya=True) == [IMAGE]
last = reached([MOTION], kohya=True)
print("kohya names, motion alone:", last)
assert isinstance(last, str) and "motion.modules" in last
PY
