"""Wan end to end on a CPU, small: captioned MP4 files to videos of prompts, without downloads.

    python -m experiments.tiny_wan --out=tiny_wan

writes what stands for a collection of videos and for published weights: Moving Digits as MP4 files
with their captions, prompts, and an autoencoder and a text encoder of random weights. Then the
package's own path, about a minute of a core's time a command:

    python -m tpdiff_jax.main --mode=prepare --config=configs/tiny_wan_clips.py \
      --config.prepare.source=tiny_wan/videos --workdir=tiny_wan/clips \
      --config.prepare.video_weights=tiny_wan/vae --config.prepare.text_weights=tiny_wan
    python -m tpdiff_jax.main --config=configs/tiny_wan.py --workdir=tiny_wan/run \
      --config.data.folder=tiny_wan/clips --config.sample.prompts=tiny_wan/prompts.txt \
      --config.sample.text_weights=tiny_wan --config.sample.video_weights=tiny_wan/vae
    python -m tpdiff_jax.main --mode=sample --workdir=tiny_wan/run --out=tiny_wan/shown \
      --prompts=tiny_wan/prompts.txt --text_weights=tiny_wan --video_weights=tiny_wan/vae
    python -m tpdiff_jax.main --mode=export --workdir=tiny_wan/run --out=tiny_wan/transformer
    python -m tpdiff_jax.main --config=configs/tiny_wan.py --workdir=tiny_wan/low_rank \
      --config.data.folder=tiny_wan/clips --config.model.weights=tiny_wan/transformer \
      --config.adaptation.rank=4 --config.adaptation.alpha=4.0 \
      --config.adaptation.trained='blocks/(self|cross)_attention/(q|k|v|out)/kernel'
    python -m tpdiff_jax.main --mode=sample --workdir=tiny_wan/low_rank --out=tiny_wan/adapted \
      --prompts=tiny_wan/prompts.txt --text_weights=tiny_wan --video_weights=tiny_wan/vae

A decoder of random weights shows no digits; the network of configs/captioned_digits_wan.py draws
its pixels itself. Needs torch and transformers.
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.captioned_digits import write_videos
from experiments.command_line import command_parser, output_folder
from experiments.tiny_text_encoders import write_umt5_encoder
from tpdiff_jax.data import MovingDigitsSpec
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.models.wan_vae.config import WanVAEConfig
from tpdiff_jax.models.wan_vae.network import WanVAE
from tpdiff_jax.models.wan_vae.weights import wan_vae_rows
from tpdiff_jax.weights.key_table import export_tensor, flatten_params, places
from tpdiff_jax.weights.tensor_files import write_folder

VAE_CONFIG = WanVAEConfig(
    latent_channels=4, level_channels=(8, 16, 16, 16), level_depth=1,
    latents_mean=(0.0,) * 4, latents_std=(1.0,) * 4,
)  # fmt: skip
DIGITS = MovingDigitsSpec(num_frames=17, frame_size=32)
NUM_PROMPTS, TEXT_DIM = 4, 16


def write_tiny_wan_vae(folder: pathlib.Path, *, seed: int = 0) -> None:
    """Write an autoencoder of random weights: what `prepare.video_encoder="wan_vae"` reads.

    Args:
        folder: must hold no safetensors.
        seed: of the weights.
    """
    config, vae = VAE_CONFIG, WanVAE(VAE_CONFIG)
    params = vae.init(jax.random.key(seed))
    leaves, dtype = flatten_params(params), np.dtype(np.float32)
    found = places(wan_vae_rows(config), params)
    sizes = {name: int(np.prod(place.shape)) * dtype.itemsize for name, place in found.items()}
    write_folder(folder, sizes, lambda name: export_tensor(leaves, found[name], dtype))
    base = config.level_channels[0]
    fields: dict[str, Any] = {
        "_class_name": "AutoencoderKLWan",
        "base_dim": base,
        "dim_mult": [width // base for width in config.level_channels],
        "z_dim": config.latent_channels,
        "num_res_blocks": config.level_depth,
        "temperal_downsample": list(config.halves_time),
        "latents_mean": list(config.latents_mean),
        "latents_std": list(config.latents_std),
    }
    write_durably(folder / "config.json", json.dumps(fields, indent=2, sort_keys=True) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Write videos, prompts and weights; return the exit code."""
    options = _parser().parse_args(argv)
    out: pathlib.Path = options.out
    captions = write_videos(out / "videos", DIGITS, options.num_clips)
    prompts = [DIGITS.clip("test", 0, index)["caption"] for index in range(NUM_PROMPTS)]
    write_durably(out / "prompts.txt", "\n".join(prompts) + "\n")
    if not (out / "text_encoder").is_dir():
        write_umt5_encoder(out, [*captions, *prompts], width=TEXT_DIM)
    if not (out / "vae").is_dir():
        write_tiny_wan_vae(out / "vae")
    return 0


def _parser() -> Any:
    parser = command_parser("experiments.tiny_wan", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--num_clips", type=int, default=32, help="videos")
    return parser


if __name__ == "__main__":
    sys.exit(main())
