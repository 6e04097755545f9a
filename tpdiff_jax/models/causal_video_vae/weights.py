"""Weights of Pyramid-Flow's causal video autoencoder: the table of its 260 tensors."""

import pathlib
from typing import Any

import jax

from tpdiff_jax.files.json_files import read_json, refusing_odd_fields
from tpdiff_jax.models.causal_video_vae.config import CausalVideoVAEConfig
from tpdiff_jax.models.causal_video_vae.network import CausalVideoVAE
from tpdiff_jax.types import Params
from tpdiff_jax.weights.config_files import shape_of_fields
from tpdiff_jax.weights.frame_rows import convolution_3d_rows, norm_rows, pointwise_3d_rows
from tpdiff_jax.weights.key_table import (
    KeyRow,
    linear_rows,
)
from tpdiff_jax.weights.published_folder import read_published
from tpdiff_jax.weights.tensor_files import open_tensor_folder

CAUSAL_VAE_FIELDS: tuple[tuple[str, str, bool], ...] = (
    ("encoder_in_channels", "channels", False),
    ("decoder_out_channels", "channels", False),
    ("encoder_out_channels", "latent_channels", False),
    ("decoder_in_channels", "latent_channels", False),
    ("encoder_block_out_channels", "level_channels", False),
    ("decoder_block_out_channels", "level_channels", False),
    ("encoder_layers_per_block", "encoder_depth", True),
    ("decoder_layers_per_block", "decoder_depth", True),
    ("encoder_norm_num_groups", "num_groups", False),
    ("decoder_norm_num_groups", "num_groups", False),
)
"""Entries of config.json, fields of `CausalVideoVAEConfig`, and whether there is one a level."""


def causal_video_vae_rows(config: CausalVideoVAEConfig) -> list[KeyRow]:
    """Return the key table."""
    num_levels = len(config.level_channels)
    rows = _pointwise("quant_conv", "encoder/moments")
    rows += _pointwise("post_quant_conv", "decoder/latents")
    for part, levels, depth in (
        ("encoder", "down_blocks", config.encoder_depth),
        ("decoder", "up_blocks", config.decoder_depth),
    ):
        widths = config.level_channels if part == "encoder" else config.level_channels[::-1]
        rows += _convolution(f"{part}.conv_in", f"{part}/conv_in")
        rows += _convolution(f"{part}.conv_out", f"{part}/conv_out")
        rows += norm_rows(f"{part}.conv_norm_out", f"{part}/norm")
        rows += _middle(f"{part}.mid_block", f"{part}/middle")
        for i in range(num_levels):
            tensor, param = f"{part}.{levels}.{i}", f"{part}/levels/{i}"
            changes_width = i > 0 and widths[i] != widths[i - 1]
            for j in range(depth):
                block = (f"{tensor}.resnets.{j}", f"{param}/residuals/{j}")
                rows += _residual(*block, has_shortcut=j == 0 and changes_width)
            if i < num_levels - 1:
                rows += _resampling(part, tensor, param)
    return rows


def read_vae_config(folder: pathlib.Path) -> CausalVideoVAEConfig:
    """Return the shape that a folder's config.json states; without that file the published one.

    Raises:
        ValueError: when the file cannot be read, or states another kind of autoencoder.
    """
    path = folder / "config.json"
    if not path.exists():
        return CausalVideoVAEConfig()
    with refusing_odd_fields(path):
        return CausalVideoVAEConfig(**_shape_of(path))


def _shape_of(path: pathlib.Path) -> dict[str, Any]:
    fields = dict(read_json(path))
    for name, _, is_per_level in CAUSAL_VAE_FIELDS:
        value = fields.get(name)
        if isinstance(value, list) and is_per_level:
            if len(set(value)) != 1:
                raise ValueError(f"{path} says {name}={value}; equal levels are read")
            fields[name] = value[0]
    return shape_of_fields(path, fields, ((name, ours) for name, ours, _ in CAUSAL_VAE_FIELDS))


def load_causal_video_vae(folder: pathlib.Path, config: CausalVideoVAEConfig) -> Params:
    """Read a folder of published weights.

    Args:
        folder: holds safetensors files, perhaps in shards with an index.
        config: the autoencoder to fill.

    Returns:
        The parameters as float32 numpy arrays, in the host's memory.

    Raises:
        ValueError: naming the first tensor that is missing, left over or of another shape.
    """
    shapes = jax.eval_shape(CausalVideoVAE(config).init, jax.random.key(0))
    return read_published(open_tensor_folder(folder), causal_video_vae_rows(config), shapes)


def _resampling(part: str, tensor: str, param: str) -> list[KeyRow]:
    space, time, verb = (
        ("downsamplers", "temporal_downsamplers", "downsample")
        if part == "encoder"
        else ("upsamplers", "temporal_upsamplers", "upsample")
    )
    return [
        *_convolution(f"{tensor}.{space}.0.conv", f"{param}/{verb}_space"),
        *_convolution(f"{tensor}.{time}.0.conv", f"{param}/{verb}_time"),
    ]


def _middle(tensor: str, param: str) -> list[KeyRow]:
    attention = f"{tensor}.attentions.0"
    return [
        *_residual(f"{tensor}.resnets.0", f"{param}/residual_1", has_shortcut=False),
        *norm_rows(f"{attention}.group_norm", f"{param}/norm"),
        *linear_rows(f"{attention}.to_q", f"{param}/attention/qkv", (0, 3)),
        *linear_rows(f"{attention}.to_k", f"{param}/attention/qkv", (1, 3)),
        *linear_rows(f"{attention}.to_v", f"{param}/attention/qkv", (2, 3)),
        *linear_rows(f"{attention}.to_out.0", f"{param}/attention/out"),
        *_residual(f"{tensor}.resnets.1", f"{param}/residual_2", has_shortcut=False),
    ]


def _residual(tensor: str, param: str, has_shortcut: bool) -> list[KeyRow]:
    rows = [
        *norm_rows(f"{tensor}.norm1", f"{param}/norm_1"),
        *_convolution(f"{tensor}.conv1", f"{param}/conv_1"),
        *norm_rows(f"{tensor}.norm2", f"{param}/norm_2"),
        *_convolution(f"{tensor}.conv2", f"{param}/conv_2"),
    ]
    return rows + (
        _pointwise(f"{tensor}.conv_shortcut", f"{param}/shortcut") if has_shortcut else []
    )


def _convolution(tensor: str, param: str) -> list[KeyRow]:
    return convolution_3d_rows(f"{tensor}.conv", f"{param}/conv")


def _pointwise(tensor: str, param: str) -> list[KeyRow]:
    return pointwise_3d_rows(f"{tensor}.conv", param)
