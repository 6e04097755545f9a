"""Weights of Wan's autoencoder: the table of its 194 tensors, in diffusers' names and Wan's own.

Wan publishes its own names in a pickled file, which is not read: a copy of it in safetensors is.
"""

import pathlib
import re
from typing import Any

import jax

from tpdiff_jax.files.json_files import read_json, refusing_odd_fields
from tpdiff_jax.models.wan_vae.config import WanVAEConfig
from tpdiff_jax.models.wan_vae.network import WanVAE
from tpdiff_jax.types import Params
from tpdiff_jax.weights.config_files import check_only_read_as, shape_of_fields
from tpdiff_jax.weights.frame_rows import (
    convolution_3d_rows,
    convolution_rows,
    pointwise_3d_rows,
    pointwise_rows,
)
from tpdiff_jax.weights.key_table import KeyRow, Transform, check_tensors, import_params, places
from tpdiff_jax.weights.tensor_files import open_tensor_folder

WAN_VAE_FIELDS: tuple[tuple[str, str], ...] = (
    ("in_channels", "channels"),
    ("out_channels", "channels"),
    ("z_dim", "latent_channels"),
    ("num_res_blocks", "level_depth"),
    ("temperal_downsample", "halves_time"),
    ("latents_mean", "latents_mean"),
    ("latents_std", "latents_std"),
)
"""Entries of config.json and fields of `WanVAEConfig`."""
WAN_VAE_ONLY: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("_class_name", ("AutoencoderKLWan",)),
    ("attn_scales", ([],)),
    ("is_residual", (False,)),
    ("patch_size", (None, 1)),
)
"""Entries of config.json that other autoencoders, as that of Wan 2.2, have other values of."""
NATIVE_NAMES: tuple[tuple[str, str], ...] = (
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.down_blocks\.", ".downsamples."),
    (r"\.norm1\.", ".residual.0."),
    (r"(?<=\d)\.conv1\.", ".residual.2."),
    (r"\.norm2\.", ".residual.3."),
    (r"(?<=\d)\.conv2\.", ".residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
)
"""Parts of diffusers' names and what Wan's own files have in their place, one after the other."""
UP_BLOCK = re.compile(r"\.up_blocks\.(\d+)\.(?:resnets\.(\d+)|upsamplers\.0)\.")


def _gamma(*ones: int) -> Transform:
    """Return the change of a norm's scale, which PyTorch keeps with axes of 1 behind it."""
    return Transform(lambda x: x.reshape(-1), lambda x: x.reshape(-1, *ones))


SCALE_OF_VIDEO, SCALE_OF_FRAMES = _gamma(1, 1, 1), _gamma(1, 1)


def wan_vae_rows(config: WanVAEConfig) -> list[KeyRow]:
    """Return the key table in diffusers' names."""
    rows = pointwise_3d_rows("quant_conv", "encoder/moments")
    rows += pointwise_3d_rows("post_quant_conv", "decoder/latents")
    for part in ("encoder", "decoder"):
        rows += convolution_3d_rows(f"{part}.conv_in", f"{part}/conv_in/conv")
        rows += convolution_3d_rows(f"{part}.conv_out", f"{part}/conv_out/conv")
        rows += _norm(f"{part}.norm_out", f"{part}/norm")
        rows += _middle(f"{part}.mid_block", f"{part}/middle")
    return rows + _down_levels(config) + _up_levels(config)


def native_name(name: str, config: WanVAEConfig) -> str:
    """Return what Wan's own files call a tensor.

    Args:
        name: diffusers' name.
        config: the autoencoder; its depth decides the numbers of the decoder's parts.

    Returns:
        The name in `Wan2.1_VAE.pth`.
    """
    depth = config.level_depth + 1  # residual blocks; the resampling comes after them

    def number(match: re.Match[str]) -> str:
        level, block = int(match[1]), int(match[2]) if match[2] else depth
        return f".upsamples.{level * (depth + 1) + block}."

    name = UP_BLOCK.sub(number, name)
    for pattern, native in NATIVE_NAMES:
        name = re.sub(pattern, native, name)
    return name


def read_wan_vae_config(folder: pathlib.Path) -> WanVAEConfig:
    """Return the shape that a folder's config.json states; without that file the published one.

    Raises:
        ValueError: when the file cannot be read, or states another kind of autoencoder.
    """
    path = folder / "config.json"
    if not path.exists():
        return WanVAEConfig()
    fields = read_json(path)
    check_only_read_as(path, fields, WAN_VAE_ONLY)
    base, multiples = fields.get("base_dim", 96), fields.get("dim_mult", [1, 2, 4, 4])
    if fields.get("decoder_base_dim") not in (None, base):
        raise ValueError(f"{path} says decoder_base_dim={fields['decoder_base_dim']}, not {base}")
    shape = shape_of_fields(path, fields, WAN_VAE_FIELDS)
    with refusing_odd_fields(path):
        if not multiples or multiples[0] != 1:
            raise ValueError(f"{path} says dim_mult={multiples}; a list that starts with 1 is read")
        level_channels = tuple(base * multiple for multiple in multiples)
        return WanVAEConfig(level_channels=level_channels, **shape)


def load_wan_vae(folder: pathlib.Path, config: WanVAEConfig) -> Params:
    """Read a folder of published weights, in diffusers' names or in Wan's own.

    Args:
        folder: holds safetensors files, perhaps in shards with an index.
        config: the autoencoder to fill.

    Returns:
        The parameters as float32 numpy arrays, in the host's memory.

    Raises:
        ValueError: naming the first tensor that is missing, left over or of another shape.
    """
    shapes = jax.eval_shape(WanVAE(config).init, jax.random.key(0))
    found, tensors = places(wan_vae_rows(config), shapes), open_tensor_folder(folder)
    native = {native_name(name, config): place for name, place in found.items()}
    # Either form may lack tensors: the one that more of the file's names belong to is meant.
    if len(native.keys() & tensors.shapes) > len(found.keys() & tensors.shapes):
        found = native
    check_tensors(found, tensors.shapes, str(folder))
    return import_params(found, tensors.read, shapes)


def _down_levels(config: WanVAEConfig) -> list[KeyRow]:
    """Rows of the encoder's levels, whose parts diffusers counts through."""
    rows, index = list[KeyRow](), 0
    widths, last = config.level_channels, len(config.level_channels) - 1
    for i, width in enumerate(widths):
        param, changes_width = f"encoder/levels/{i}", width != widths[max(i - 1, 0)]
        for j in range(config.level_depth):
            block = (f"encoder.down_blocks.{index}", f"{param}/residuals/{j}")
            rows += _residual(*block, has_shortcut=j == 0 and changes_width)
            index += 1
        if i < last:
            tensor = f"encoder.down_blocks.{index}"
            rows += convolution_rows(f"{tensor}.resample.1", f"{param}/downsample_space")
            if config.halves_time[i]:
                rows += convolution_3d_rows(f"{tensor}.time_conv", f"{param}/downsample_time/conv")
            index += 1
    return rows


def _up_levels(config: WanVAEConfig) -> list[KeyRow]:
    """Rows of the decoder's levels."""
    rows, widths = list[KeyRow](), config.level_channels[::-1]
    for i, width in enumerate(widths):
        tensor, param = f"decoder.up_blocks.{i}", f"decoder/levels/{i}"
        changes_width = i > 0 and width != widths[i - 1] // 2
        for j in range(config.level_depth + 1):
            block = (f"{tensor}.resnets.{j}", f"{param}/residuals/{j}")
            rows += _residual(*block, has_shortcut=j == 0 and changes_width)
        if i < len(widths) - 1:
            up = f"{tensor}.upsamplers.0"
            rows += convolution_rows(f"{up}.resample.1", f"{param}/upsample_space")
            if config.halves_time[::-1][i]:
                rows += convolution_3d_rows(f"{up}.time_conv", f"{param}/upsample_time/conv")
    return rows


def _middle(tensor: str, param: str) -> list[KeyRow]:
    attention, ours = f"{tensor}.attentions.0", f"{param}/attention"
    return [
        *_residual(f"{tensor}.resnets.0", f"{param}/residual_1", has_shortcut=False),
        KeyRow(f"{attention}.norm.gamma", f"{param}/norm/scale", SCALE_OF_FRAMES),
        *pointwise_rows(f"{attention}.to_qkv", f"{ours}/qkv"),
        *pointwise_rows(f"{attention}.proj", f"{ours}/out"),
        *_residual(f"{tensor}.resnets.1", f"{param}/residual_2", has_shortcut=False),
    ]


def _residual(tensor: str, param: str, has_shortcut: bool) -> list[KeyRow]:
    rows = [
        *_norm(f"{tensor}.norm1", f"{param}/norm_1"),
        *convolution_3d_rows(f"{tensor}.conv1", f"{param}/conv_1/conv"),
        *_norm(f"{tensor}.norm2", f"{param}/norm_2"),
        *convolution_3d_rows(f"{tensor}.conv2", f"{param}/conv_2/conv"),
    ]
    shortcut = (f"{tensor}.conv_shortcut", f"{param}/shortcut")
    return rows + (pointwise_3d_rows(*shortcut) if has_shortcut else [])


def _norm(tensor: str, param: str) -> list[KeyRow]:
    return [KeyRow(f"{tensor}.gamma", f"{param}/scale", SCALE_OF_VIDEO)]
