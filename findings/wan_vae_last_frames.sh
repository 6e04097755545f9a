#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0).
#
# Good guess: a video VAE that takes a clip of any length has looked at all of it; if its stride over time
#   does not fit, it pads, blends the rest into the last latent, or refuses.
# What happens: `AutoencoderKLWan.encode` reads frames in parts of 1, 4, 4, ... and leaves out those that do
#   not fill a part. The latents of 10, 11 and 12 frames are, bit for bit, those of the first 9, and come
#   back as 9 frames, without a word. Whoever pairs a 12 frame clip's caption, audio or poses with them is
#   off by three frames.
# Seen: as said. Controls: all 12 frames count in the latents of AutoencoderKLCogVideoX and of
#   AutoencoderKLHunyuanVideo, whose strides over time are the same; changing frame 9 changes Wan's.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile diffusers==0.42.1 torch==2.13.0
HF_HUB_OFFLINE=1 "$dir/venv/bin/python" -W ignore - <<'PY'
import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLHunyuanVideo, AutoencoderKLWan

torch.manual_seed(0)
wan = AutoencoderKLWan(
    base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, attn_scales=[],
    temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
)
small = {"block_out_channels": (8,) * 4, "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 2}
cog = AutoencoderKLCogVideoX(
    down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4, **small
)
clip = torch.randn(1, 3, 12, 16, 16)
changed = clip.clone()
changed[:, :, 8] += 1.0
for model in (wan, cog, AutoencoderKLHunyuanVideo(**small)):
    model.eval()
    with torch.no_grad():
        encode = lambda video: model.encode(video).latent_dist.mode()
        nine = encode(clip[:, :, :9])
        same = [torch.equal(encode(clip[:, :, :n]), nine) for n in (10, 11, 12)]
        frames = model.decode(encode(clip)).sample.shape[2]
        noticed = not torch.equal(encode(changed[:, :, :9]), nine)
    name = type(model).__name__
    print(f"{name}: 12 frames come back as {frames}; 10, 11, 12 frames encode as 9: {same}")
    assert frames == 9 and noticed
    assert same == [model is wan] * 3, name
PY
