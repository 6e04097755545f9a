"""Weights of Open-Sora 1.2's video autoencoder, under the names of its own code.

The image autoencoder has diffusers' names behind `spatial_vae.module.`, older ones included. The
files also hold `shift` and `scale` of the latents, which must be those of the config.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from tpdiff_jax.files.json_files import read_json, refusing_odd_fields
from tpdiff_jax.models.image_vae.weights import (
    current_image_vae_name,
    image_vae_config,
    image_vae_rows,
)
from tpdiff_jax.models.open_sora_vae.config import OpenSoraVAEConfig
from tpdiff_jax.models.open_sora_vae.network import OpenSoraVAE
from tpdiff_jax.types import Params
from tpdiff_jax.weights.config_files import shape_of_fields
from tpdiff_jax.weights.frame_rows import (
    CONVOLUTION_3D,
    POINTWISE_3D,
    convolution_3d_rows,
    norm_rows,
    pointwise_3d_rows,
)
from tpdiff_jax.weights.key_table import KeyRow
from tpdiff_jax.weights.published_folder import read_published
from tpdiff_jax.weights.tensor_files import open_tensor_folder

IMAGE_PREFIX, TEMPORAL_PREFIX = "spatial_vae.module.", "temporal_vae."
LATENT_SCALES = ("shift", "scale")
TEMPORAL_FIELDS: tuple[tuple[str, str], ...] = (
    ("filters", "width"),
    ("num_res_blocks", "level_depth"),
    ("channel_multipliers", "multipliers"),
    ("temporal_downsample", "halves_frames"),
    ("num_groups", "num_groups"),
)
"""Entries of `vae_temporal` in config.json and fields of `OpenSoraVAEConfig`."""
PIPELINE_FIELDS: tuple[tuple[str, str], ...] = (
    ("micro_frame_size", "chunk_frames"),
    ("shift", "shift"),
    ("scale", "scale"),
)
"""Entries of config.json itself."""


def open_sora_vae_rows(config: OpenSoraVAEConfig) -> list[KeyRow]:
    """Return the key table."""
    rows = [
        row._replace(tensor=IMAGE_PREFIX + row.tensor, param=f"image/{row.param}")
        for row in image_vae_rows(config.image)
    ]
    return rows + [
        row._replace(tensor=TEMPORAL_PREFIX + row.tensor) for row in _temporal_rows(config)
    ]


def _temporal_rows(config: OpenSoraVAEConfig) -> list[KeyRow]:
    widths, num_levels = config.level_channels, len(config.level_channels)
    rows = pointwise_3d_rows("quant_conv.conv", "encoder/moments")
    rows += pointwise_3d_rows("post_quant_conv.conv", "decoder/latents")
    rows.append(
        KeyRow("encoder.conv_in.conv.weight", "encoder/conv_in/conv/kernel", CONVOLUTION_3D)
    )
    rows += pointwise_3d_rows("encoder.conv2.conv", "encoder/conv_out")
    rows += convolution_3d_rows("decoder.conv1.conv", "decoder/conv_in/conv")
    rows += convolution_3d_rows("decoder.conv_out.conv", "decoder/conv_out/conv")
    for part in ("encoder", "decoder"):
        rows += norm_rows(f"{part}.norm1", f"{part}/norm")
        rows += _residual_rows(f"{part}.res_blocks", f"{part}/residuals", config, False)
    for i in range(num_levels):
        place = num_levels - 1 - i  # the decoder's files count from the frames on too
        halves = i < num_levels - 1 and config.halves_frames[i]
        changes = i > 0 and widths[i] != widths[i - 1]
        deeper = i < num_levels - 1 and widths[i] != widths[i + 1]
        blocks = f"block_res_blocks.{i}"
        rows += _residual_rows(
            f"encoder.{blocks}", f"encoder/levels/{i}/residuals", config, changes
        )
        rows += _residual_rows(
            f"decoder.{blocks}", f"decoder/levels/{place}/residuals", config, deeper
        )
        if halves:
            conv = f"conv_blocks.{i}.conv"
            rows += convolution_3d_rows(f"encoder.{conv}", f"encoder/levels/{i}/downsample/conv")
            up = f"decoder/levels/{place - 1}/upsample/conv"
            rows += convolution_3d_rows(f"decoder.{conv}", up)
    return rows


def _residual_rows(
    tensor: str, param: str, config: OpenSoraVAEConfig, has_shortcut: bool
) -> list[KeyRow]:
    """Rows of residual blocks in a row, the first of which may change the width."""
    rows = []
    for j in range(config.level_depth):
        theirs, ours = f"{tensor}.{j}", f"{param}/{j}"
        for k in (1, 2):
            rows += norm_rows(f"{theirs}.norm{k}", f"{ours}/norm_{k}")
            kernel = f"{ours}/conv_{k}/conv/kernel"
            rows.append(KeyRow(f"{theirs}.conv{k}.conv.weight", kernel, CONVOLUTION_3D))
        if has_shortcut and j == 0:
            kernel = f"{ours}/shortcut/kernel"
            rows.append(KeyRow(f"{theirs}.conv3.conv.weight", kernel, POINTWISE_3D))
    return rows


def read_open_sora_vae_config(folder: pathlib.Path) -> OpenSoraVAEConfig:
    """Return the shape that a folder's config.json states; without that file the published one.

    Raises:
        ValueError: when the file cannot be read, or states another kind of autoencoder.
    """
    path = folder / "config.json"
    if not path.exists():
        return OpenSoraVAEConfig()
    fields = read_json(path)
    shape = shape_of_fields(path, fields, PIPELINE_FIELDS)
    shape |= shape_of_fields(path, _part(path, fields, "vae_temporal"), TEMPORAL_FIELDS)
    of_image = _part(path, fields, "vae_2d")
    with refusing_odd_fields(path):
        return OpenSoraVAEConfig(image=image_vae_config(path, of_image), **shape)


def _part(path: pathlib.Path, fields: Any, name: str) -> dict[str, Any]:
    part = fields.get(name) or {}
    if not isinstance(part, dict):
        raise ValueError(f"{path} says {name}={part!r}, which is no object")
    return part


def load_open_sora_vae(folder: pathlib.Path, config: OpenSoraVAEConfig) -> Params:
    """Read a folder of published weights.

    Args:
        folder: holds safetensors files, perhaps in shards with an index.
        config: the autoencoder to fill.

    Returns:
        The parameters as float32 numpy arrays, in the host's memory.

    Raises:
        ValueError: naming the first tensor that is missing, left over or of another shape, or
            latents of another scale.
    """
    shapes = jax.eval_shape(OpenSoraVAE(config).init, jax.random.key(0))
    tensors = open_tensor_folder(folder)
    stored = {current_image_vae_name(name): name for name in tensors.shapes}
    learned = {new: old for new, old in stored.items() if new not in LATENT_SCALES}
    params = read_published(tensors, open_sora_vae_rows(config), shapes, learned)
    for name in LATENT_SCALES:
        ours = np.float32(getattr(config, name))
        if name in stored and not np.allclose(tensors.read(name).reshape(-1), ours, rtol=1e-2):
            raise ValueError(f"{folder}: tensor {name!r} is not {ours.tolist()}, the config's")
    return params
