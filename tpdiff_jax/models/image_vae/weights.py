"""Weights of Stable Diffusion's image autoencoder: the table of its 248 tensors.

Older files name the middle's attention otherwise; both names are read.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from tpdiff_jax.files.json_files import read_json, refusing_odd_fields
from tpdiff_jax.models.image_vae.config import ImageVAEConfig
from tpdiff_jax.models.image_vae.network import ImageVAE
from tpdiff_jax.types import Params
from tpdiff_jax.weights.config_files import check_only_read_as, shape_of_fields
from tpdiff_jax.weights.frame_rows import convolution_rows, norm_rows, pointwise_rows, residual_rows
from tpdiff_jax.weights.key_table import KeyRow, linear_rows
from tpdiff_jax.weights.published_folder import read_published
from tpdiff_jax.weights.tensor_files import open_tensor_folder

IMAGE_VAE_FIELDS: tuple[tuple[str, str], ...] = (
    ("in_channels", "channels"),
    ("out_channels", "channels"),
    ("latent_channels", "latent_channels"),
    ("block_out_channels", "level_channels"),
    ("layers_per_block", "level_depth"),
    ("norm_num_groups", "num_groups"),
    ("scaling_factor", "scale"),
)
"""Entries of config.json and fields of `ImageVAEConfig`."""
IMAGE_VAE_ONLY: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("_class_name", ("AutoencoderKL",)),
    ("act_fn", ("silu",)),
    ("latents_mean", (None,)),
    ("latents_std", (None,)),
    ("mid_block_add_attention", (True,)),
    ("shift_factor", (None, 0)),
    ("use_post_quant_conv", (True,)),
    ("use_quant_conv", (True,)),
)
"""Entries of config.json that other autoencoders of this class have other values of."""
OLD_NAMES = (
    (".query.", ".to_q."),
    (".key.", ".to_k."),
    (".value.", ".to_v."),
    (".proj_attn.", ".to_out.0."),
)


def image_vae_rows(config: ImageVAEConfig) -> list[KeyRow]:
    """Return the key table."""
    num_levels = len(config.level_channels)
    rows = pointwise_rows("quant_conv", "encoder/moments")
    rows += pointwise_rows("post_quant_conv", "decoder/latents")
    for part, levels, depth, resampler, verb in (
        ("encoder", "down_blocks", config.level_depth, "downsamplers", "downsample"),
        ("decoder", "up_blocks", config.level_depth + 1, "upsamplers", "upsample"),
    ):
        widths = config.level_channels if part == "encoder" else config.level_channels[::-1]
        rows += convolution_rows(f"{part}.conv_in", f"{part}/conv_in")
        rows += convolution_rows(f"{part}.conv_out", f"{part}/conv_out")
        rows += norm_rows(f"{part}.conv_norm_out", f"{part}/norm")
        rows += _middle(f"{part}.mid_block", f"{part}/middle")
        for i in range(num_levels):
            tensor, param = f"{part}.{levels}.{i}", f"{part}/levels/{i}"
            changes_width = i > 0 and widths[i] != widths[i - 1]
            for j in range(depth):
                block = (f"{tensor}.resnets.{j}", f"{param}/residuals/{j}")
                rows += residual_rows(*block, has_shortcut=j == 0 and changes_width)
            if i < num_levels - 1:
                rows += convolution_rows(f"{tensor}.{resampler}.0.conv", f"{param}/{verb}")
    return rows


def read_image_vae_config(folder: pathlib.Path) -> ImageVAEConfig:
    """Return the shape that a folder's config.json states; without that file the published one.

    Raises:
        ValueError: when the file cannot be read, or states another kind of autoencoder.
    """
    path = folder / "config.json"
    if not path.exists():
        return ImageVAEConfig()
    with refusing_odd_fields(path):
        return image_vae_config(path, read_json(path))


def image_vae_config(path: pathlib.Path, fields: Mapping[str, Any]) -> ImageVAEConfig:
    """Return the shape that entries of a config.json state.

    Args:
        path: of the file, for errors.
        fields: the entries.

    Raises:
        ValueError: naming an entry that does not fit.
    """
    check_only_read_as(path, fields, IMAGE_VAE_ONLY)
    return ImageVAEConfig(**shape_of_fields(path, fields, IMAGE_VAE_FIELDS))


def load_image_vae(folder: pathlib.Path, config: ImageVAEConfig) -> Params:
    """Read a folder of published weights.

    Args:
        folder: holds safetensors files, perhaps in shards with an index.
        config: the autoencoder to fill.

    Returns:
        The parameters as float32 numpy arrays, in the host's memory.

    Raises:
        ValueError: naming the first tensor that is missing, left over or of another shape.
    """
    shapes = jax.eval_shape(ImageVAE(config).init, jax.random.key(0))
    tensors = open_tensor_folder(folder)
    stored = {current_image_vae_name(name): name for name in tensors.shapes}
    return read_published(tensors, image_vae_rows(config), shapes, stored)


def current_image_vae_name(name: str) -> str:
    """Return a tensor's name as newer files have it."""
    for old, new in OLD_NAMES:
        name = name.replace(old, new)
    return name


def _middle(tensor: str, param: str) -> list[KeyRow]:
    attention, ours = f"{tensor}.attentions.0", f"{param}/attention"
    return [
        *residual_rows(f"{tensor}.resnets.0", f"{param}/residual_1", has_shortcut=False),
        *norm_rows(f"{attention}.group_norm", f"{param}/norm"),
        *linear_rows(f"{attention}.to_q", f"{ours}/qkv", (0, 3)),
        *linear_rows(f"{attention}.to_k", f"{ours}/qkv", (1, 3)),
        *linear_rows(f"{attention}.to_v", f"{ours}/qkv", (2, 3)),
        *linear_rows(f"{attention}.to_out.0", f"{ours}/out"),
        *residual_rows(f"{tensor}.resnets.1", f"{param}/residual_2", has_shortcut=False),
    ]
