"""Weights of Open-Sora's transformers, under the names of their own code.

1.0 publishes pickles, of which a copy in safetensors is read; 1.2 publishes safetensors with a
config.json. Files of 1.0 hold two tables of sinusoids besides, which are passed over: positions are
computed, and Open-Sora's own code takes the tables out of a file too.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from tpdiff_jax.checks import check_choice
from tpdiff_jax.models.open_sora.config import OpenSoraConfig
from tpdiff_jax.models.open_sora.network import OpenSora
from tpdiff_jax.types import Params
from tpdiff_jax.weights.config_files import check_config_file
from tpdiff_jax.weights.frame_rows import patch_rows
from tpdiff_jax.weights.key_table import (
    KeyRow,
    linear_rows,
)
from tpdiff_jax.weights.published_folder import read_published, write_published
from tpdiff_jax.weights.tensor_files import open_tensor_folder

OPEN_SORA_LAYOUTS = ("native",)
COMPUTED_TABLES = ("pos_embed", "pos_embed_temporal")

STEM_LINEARS: tuple[tuple[str, str], ...] = (
    ("t_embedder.mlp.0", "stem/time/inner"),
    ("t_embedder.mlp.2", "stem/time/outer"),
    ("t_block.1", "stem/modulation"),
    ("y_embedder.y_proj.fc1", "stem/text/inner"),
    ("y_embedder.y_proj.fc2", "stem/text/outer"),
    ("final_layer.linear", "head/patch"),
)
FPS_LINEARS: tuple[tuple[str, str], ...] = (
    ("fps_embedder.mlp.0", "stem/fps/inner"),
    ("fps_embedder.mlp.2", "stem/fps/outer"),
)
BLOCK_LINEARS: tuple[tuple[str, str], ...] = (
    ("cross_attn.q_linear", "cross_attention/q"),
    ("cross_attn.kv_linear", "cross_attention/kv"),
    ("cross_attn.proj", "cross_attention/out"),
    ("mlp.fc1", "feed_forward/inner"),
    ("mlp.fc2", "feed_forward/outer"),
)
BLOCK_NAMES: Mapping[str, str] = {
    "both": "blocks.{layer}",
    "space": "spatial_blocks.{layer}",
    "time": "temporal_blocks.{layer}",
}
"""Names of the blocks of a layer, here and in the files."""
OPEN_SORA_FIELDS: tuple[tuple[str, str], ...] = (
    ("in_channels", "channels"),
    ("patch_size", "patch_sides"),
    ("hidden_size", "hidden_size"),
    ("num_heads", "num_heads"),
    ("depth", "depth"),
    ("mlp_ratio", "mlp_ratio"),
    ("caption_channels", "text_dim"),
    ("model_max_length", "num_text_tokens"),
    ("pred_sigma", "has_variance"),
    ("qk_norm", "qk_norm"),
)
"""Entries of config.json and the fields or properties of `OpenSoraConfig` that they must equal."""
ROTARY_FIELDS: tuple[tuple[str, str], ...] = (("input_sq_size", "base_pixels"),)
"""The same of 1.2 alone: 1.0's own code is told by its caller."""
ROTARY_MADE_OF: Mapping[str, str] = {"base_pixels": ", 8 times model.base_side"}
MODEL_TYPES: Mapping[str, str] = {"stdit": "STDiT", "stdit3": "STDiT3"}


def open_sora_rows(config: OpenSoraConfig) -> list[KeyRow]:
    """Return the key table of a form."""
    rows = patch_rows("x_embedder.proj", "stem/patch", config.patch_size)
    rows += [
        KeyRow("y_embedder.y_embedding", "stem/no_text"),
        KeyRow("final_layer.scale_shift_table", "head/modulation/table"),
    ]
    linears = [*STEM_LINEARS]
    if config.is_rotary:
        rows.append(KeyRow("rope.freqs", "stem/frequencies"))
        linears += FPS_LINEARS
    for block, axes in config.blocks.items():
        tensor, param = BLOCK_NAMES[block], f"blocks/{block}"
        rows.append(KeyRow(f"{tensor}.scale_shift_table", f"{param}/modulation/table"))
        linears += [(f"{tensor}.{name}", f"{param}/{ours}") for name, ours in BLOCK_LINEARS]
        for place, axis in enumerate(axes):
            attention = f"{tensor}.{'attn' if place == 0 else 'attn_temp'}"
            ours = f"{param}/attention/{axis}"
            linears += [(f"{attention}.qkv", f"{ours}/qkv"), (f"{attention}.proj", f"{ours}/out")]
            if config.qk_norm:
                rows += [
                    KeyRow(f"{attention}.{x}_norm.weight", f"{ours}/{x}_norm/scale") for x in "qk"
                ]
    return rows + [row for linear in linears for row in linear_rows(*linear)]


def load_open_sora(
    folder: pathlib.Path, config: OpenSoraConfig, params: Params | None = None
) -> Params:
    """Read a folder of published weights.

    Args:
        folder: holds safetensors files, perhaps in shards with an index, perhaps a config.json.
        config: the network to fill.
        params: shapes of the parameters with their shardings, to load onto devices; None: into the
            host's memory.

    Returns:
        The parameters, float32: numpy arrays, or device arrays.

    Raises:
        ValueError: naming what does not fit: an entry of config.json, or the first tensor that is
            missing, left over or of another shape.
    """
    shapes, tensors = params or abstract_open_sora_params(config), open_tensor_folder(folder)
    if (folder / "config.json").exists():
        fixed = {"model_type": MODEL_TYPES[config.form]}
        check_config_file(folder / "config.json", config, _fields(config), ROTARY_MADE_OF, fixed)
    passed_over = () if config.is_rotary else COMPUTED_TABLES
    learned = {name: name for name in tensors.shapes if name not in passed_over}
    return read_published(tensors, open_sora_rows(config), shapes, learned)


def save_open_sora(
    folder: pathlib.Path,
    params: Params,
    config: OpenSoraConfig,
    layout: str = "native",
    dtype: str = "float32",
) -> None:
    """Write parameters under Open-Sora's names, with a config.json.

    Args:
        folder: made if it is not there; must hold no safetensors.
        params: parameters of `config`'s network.
        config: the network.
        layout: one of `OPEN_SORA_LAYOUTS`.
        dtype: stored type, float32, bfloat16 or float16.

    Raises:
        ValueError: for an unknown layout or type, or a folder that already holds safetensors.
    """
    check_choice("layout", layout, OPEN_SORA_LAYOUTS)
    fields = published_open_sora_fields(config)
    write_published(folder, open_sora_rows(config), params, dtype, fields)


def abstract_open_sora_params(config: OpenSoraConfig) -> Params:
    """Shapes and types of the parameters; nothing is allocated."""
    return jax.eval_shape(OpenSora(config).init, jax.random.key(0))


def published_open_sora_fields(config: OpenSoraConfig) -> dict[str, Any]:
    """Return the entries of config.json that Open-Sora's own code reads."""
    sizes = {name: getattr(config, ours) for name, ours in _fields(config)}
    return {**sizes, "model_type": MODEL_TYPES[config.form]}


def _fields(config: OpenSoraConfig) -> tuple[tuple[str, str], ...]:
    return OPEN_SORA_FIELDS + (ROTARY_FIELDS if config.is_rotary else ())
