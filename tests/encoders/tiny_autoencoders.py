"""Folders of small autoencoders with random weights, as published ones are laid out."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from safetensors.numpy import save_file

from tests.models.causal_video_vae.causal_video_vae_reference import CONFIG, random_tensors
from tests.models.wan_vae.wan_vae_reference import make_reference
from tpdiff_jax.models.causal_video_vae.network import CausalVideoVAE
from tpdiff_jax.models.causal_video_vae.weights import causal_video_vae_rows
from tpdiff_jax.models.image_vae.config import ImageVAEConfig
from tpdiff_jax.models.image_vae.network import ImageVAE
from tpdiff_jax.models.image_vae.weights import image_vae_rows
from tpdiff_jax.weights.key_table import KeyRow, places

CAUSAL_FIELDS = {
    "encoder_in_channels": 3,
    "decoder_out_channels": 3,
    "encoder_out_channels": 3,
    "decoder_in_channels": 3,
    "encoder_block_out_channels": [4, 8, 8],
    "decoder_block_out_channels": [4, 8, 8],
    "encoder_layers_per_block": [1, 1, 1],
    "decoder_layers_per_block": [2, 2, 2],
    "encoder_norm_num_groups": 2,
    "decoder_norm_num_groups": 2,
    "scaling_factor": 0.13025,
}
IMAGE_CONFIG = ImageVAEConfig(latent_channels=3, level_channels=(4, 8), level_depth=1, num_groups=2)
IMAGE_FIELDS = {
    "latent_channels": 3,
    "block_out_channels": [4, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
}

KEY = jax.random.key(0)


def write_causal_video_vae(folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Write one that makes 1 + m latents of 1 + 4 m frames, a quarter of each side."""
    rows, shapes = causal_video_vae_rows(CONFIG), jax.eval_shape(CausalVideoVAE(CONFIG).init, KEY)
    return _write(folder, rows, shapes, CAUSAL_FIELDS, seed)


def write_image_vae(folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Write one that makes a latent of every frame, half of each side."""
    shapes = jax.eval_shape(ImageVAE(IMAGE_CONFIG).init, KEY)
    return _write(folder, image_vae_rows(IMAGE_CONFIG), shapes, IMAGE_FIELDS, seed)


def write_wan_vae(folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Write one that makes 1 + m latents of 1 + 4 m frames, an eighth of each side."""
    make_reference(seed=seed).save_pretrained(folder)
    return folder


def _write(
    folder: pathlib.Path, rows: list[KeyRow], shapes: Any, fields: Mapping[str, Any], seed: int
) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    needed = {name: place.shape for name, place in places(rows, shapes).items()}
    tensors = {name: tensor.numpy() for name, tensor in random_tensors(needed, seed).items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(fields))
    return folder
