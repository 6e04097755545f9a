"""Weights of ModelScope's network: the folder `unet` of a pipeline in diffusers' layout."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from tpdiff_jax.checks import check_choice
from tpdiff_jax.models.modelscope.config import ModelScopeConfig
from tpdiff_jax.models.modelscope.layers import TIME_STEPS
from tpdiff_jax.models.modelscope.network import ModelScope, modelscope_steps
from tpdiff_jax.models.unet.rows import transformer_rows, unet_rows
from tpdiff_jax.models.unet.steps import Step
from tpdiff_jax.types import Params
from tpdiff_jax.weights.config_files import check_config_file
from tpdiff_jax.weights.frame_rows import norm_rows, time_convolution_rows
from tpdiff_jax.weights.key_table import KeyRow, linear_rows
from tpdiff_jax.weights.published_folder import read_published, write_published
from tpdiff_jax.weights.tensor_files import open_tensor_folder

MODELSCOPE_LAYOUTS = ("diffusers",)
MODELSCOPE_FOLDER = "unet"
MODELSCOPE_SAMPLE_SIZE = 32  # latents along a side that diffusers samples where nobody says
MODELSCOPE_FIELDS: tuple[tuple[str, str], ...] = (
    ("attention_head_dim", "head_dim"),
    ("block_out_channels", "level_channels"),
    ("cross_attention_dim", "text_dim"),
    ("in_channels", "channels"),
    ("layers_per_block", "level_depth"),
    ("norm_num_groups", "num_groups"),
    ("out_channels", "channels"),
)
"""Entries of config.json and the fields of `ModelScopeConfig` that they must equal."""
MODELSCOPE_FIXED: Mapping[str, Any] = {
    "_class_name": "UNet3DConditionModel",
    "act_fn": "silu",
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "num_attention_heads": None,
    "time_cond_proj_dim": None,
}
"""Entries of config.json that say that it is this network."""


def modelscope_rows(config: ModelScopeConfig) -> list[KeyRow]:
    """Return the key table."""
    return unet_rows(modelscope_steps(config), _own_rows)


def load_modelscope(
    folder: pathlib.Path, config: ModelScopeConfig, params: Params | None = None
) -> Params:
    """Read a folder of published weights.

    Args:
        folder: holds `unet`, with safetensors files and perhaps a config.json.
        config: the network to fill.
        params: shapes of the parameters with their shardings, to load onto devices; None: into the
            host's memory.

    Returns:
        The parameters, float32: numpy arrays, or device arrays.

    Raises:
        ValueError: naming what does not fit: an entry of config.json, or the first tensor that is
            missing, left over or of another shape.
    """
    unet, shapes = folder / MODELSCOPE_FOLDER, params or abstract_modelscope_params(config)
    tensors = open_tensor_folder(unet)
    if (unet / "config.json").exists():
        fixed = {**MODELSCOPE_FIXED, **_block_types(config)}
        check_config_file(unet / "config.json", config, MODELSCOPE_FIELDS, fixed=fixed)
    return read_published(tensors, modelscope_rows(config), shapes)


def save_modelscope(
    folder: pathlib.Path,
    params: Params,
    config: ModelScopeConfig,
    layout: str = "diffusers",
    dtype: str = "float32",
) -> None:
    """Write parameters as `unet` with a config.json, as diffusers' pipelines hold it.

    Args:
        folder: made if it is not there; its `unet` must hold no safetensors.
        params: parameters of `config`'s network.
        config: the network.
        layout: one of `MODELSCOPE_LAYOUTS`.
        dtype: stored type, float32, bfloat16 or float16.

    Raises:
        ValueError: for an unknown layout or type, or a folder that already holds safetensors.
    """
    check_choice("layout", layout, MODELSCOPE_LAYOUTS)
    fields = published_modelscope_fields(config)
    write_published(folder / MODELSCOPE_FOLDER, modelscope_rows(config), params, dtype, fields)


def abstract_modelscope_params(config: ModelScopeConfig) -> Params:
    """Shapes and types of the parameters; nothing is allocated."""
    return jax.eval_shape(ModelScope(config).init, jax.random.key(0))


def published_modelscope_fields(config: ModelScopeConfig) -> dict[str, Any]:
    """Return the entries of config.json that diffusers reads."""
    sizes = {name: getattr(config, ours) for name, ours in MODELSCOPE_FIELDS}
    types = _block_types(config)
    return {**sizes, **MODELSCOPE_FIXED, **types, "sample_size": MODELSCOPE_SAMPLE_SIZE}


def _block_types(config: ModelScopeConfig) -> dict[str, tuple[str, ...]]:
    last = config.num_levels - 1
    return {
        "down_block_types": ("CrossAttnDownBlock3D",) * last + ("DownBlock3D",),
        "up_block_types": ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * last,
    }


def _own_rows(step: Step, section: str, j: str) -> Iterator[KeyRow]:
    param = f"{step.section}/{step.name}"
    if step.section == "entrance":
        yield from transformer_rows("transformer_in", f"{param}/temporal", linear_rows)
        return
    for i, name in enumerate(TIME_STEPS):
        # Between activation and convolution all but the first have a dropout.
        theirs, ours = f"{section}.temp_convs.{j}.conv{i + 1}", f"{param}/convolutions/{name}"
        yield from norm_rows(f"{theirs}.0", f"{ours}/norm")
        yield from time_convolution_rows(f"{theirs}.{2 if i == 0 else 3}", f"{ours}/conv")
    if step.is_layer and step.shape.has_attention:
        yield from transformer_rows(f"{section}.attentions.{j}", f"{param}/spatial", linear_rows)
        yield from transformer_rows(
            f"{section}.temp_attentions.{j}", f"{param}/temporal", linear_rows
        )
