"""Weights of Wan's transformer: two published layouts with other names for the same tensors.

    "diffusers"  diffusers' WanTransformer3DModel, the folder `transformer` of its pipelines
    "native"     Wan's own code, WanModel

The norm before the attention to the text is `norm2` in the one and `norm3` in the other. Reading
tells the layouts apart by their tensors' names.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from tpdiff_jax.checks import check_choice
from tpdiff_jax.models.wan.config import WanConfig
from tpdiff_jax.models.wan.network import Wan
from tpdiff_jax.types import Params
from tpdiff_jax.weights.config_files import check_config_file
from tpdiff_jax.weights.frame_rows import patch_rows
from tpdiff_jax.weights.key_table import (
    KeyRow,
    Transform,
    linear_rows,
    places,
)
from tpdiff_jax.weights.published_folder import read_published, write_published
from tpdiff_jax.weights.tensor_files import open_tensor_folder

WAN_LAYOUTS = ("diffusers", "native")
WAN_BLOCK = "blocks.{layer}"

WAN_LINEARS: tuple[tuple[str, str, str], ...] = (
    ("stem/time/inner", "condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("stem/time/outer", "condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("stem/modulation", "condition_embedder.time_proj", "time_projection.1"),
    ("stem/text/inner", "condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("stem/text/outer", "condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("blocks/self_attention/q", f"{WAN_BLOCK}.attn1.to_q", f"{WAN_BLOCK}.self_attn.q"),
    ("blocks/self_attention/k", f"{WAN_BLOCK}.attn1.to_k", f"{WAN_BLOCK}.self_attn.k"),
    ("blocks/self_attention/v", f"{WAN_BLOCK}.attn1.to_v", f"{WAN_BLOCK}.self_attn.v"),
    ("blocks/self_attention/out", f"{WAN_BLOCK}.attn1.to_out.0", f"{WAN_BLOCK}.self_attn.o"),
    ("blocks/cross_attention/q", f"{WAN_BLOCK}.attn2.to_q", f"{WAN_BLOCK}.cross_attn.q"),
    ("blocks/cross_attention/k", f"{WAN_BLOCK}.attn2.to_k", f"{WAN_BLOCK}.cross_attn.k"),
    ("blocks/cross_attention/v", f"{WAN_BLOCK}.attn2.to_v", f"{WAN_BLOCK}.cross_attn.v"),
    ("blocks/cross_attention/out", f"{WAN_BLOCK}.attn2.to_out.0", f"{WAN_BLOCK}.cross_attn.o"),
    ("blocks/feed_forward/inner", f"{WAN_BLOCK}.ffn.net.0.proj", f"{WAN_BLOCK}.ffn.0"),
    ("blocks/feed_forward/outer", f"{WAN_BLOCK}.ffn.net.2", f"{WAN_BLOCK}.ffn.2"),
    ("head/patch", "proj_out", "head.head"),
)
"""Linear layers: path of ours, name in diffusers' layout, name in Wan's own."""
WAN_NORM_SCALES: tuple[tuple[str, str, str], ...] = (
    ("blocks/self_attention/q_norm", f"{WAN_BLOCK}.attn1.norm_q", f"{WAN_BLOCK}.self_attn.norm_q"),
    ("blocks/self_attention/k_norm", f"{WAN_BLOCK}.attn1.norm_k", f"{WAN_BLOCK}.self_attn.norm_k"),
    (
        "blocks/cross_attention/q_norm",
        f"{WAN_BLOCK}.attn2.norm_q",
        f"{WAN_BLOCK}.cross_attn.norm_q",
    ),
    (
        "blocks/cross_attention/k_norm",
        f"{WAN_BLOCK}.attn2.norm_k",
        f"{WAN_BLOCK}.cross_attn.norm_k",
    ),
    ("blocks/norm", f"{WAN_BLOCK}.norm2", f"{WAN_BLOCK}.norm3"),
)
WAN_TABLES: tuple[tuple[str, str, str], ...] = (
    ("blocks/modulation/table", f"{WAN_BLOCK}.scale_shift_table", f"{WAN_BLOCK}.modulation"),
    ("head/modulation/table", "scale_shift_table", "head.modulation"),
)
WAN_NORM_SHIFTS = WAN_NORM_SCALES[-1:]
WAN_TABLE_AXIS = Transform(lambda x: x[0], lambda x: x[None])  # files keep tables as [1, rows, d]

WAN_FIELDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "diffusers": (
        ("num_attention_heads", "num_heads"),
        ("attention_head_dim", "head_dim"),
        ("num_layers", "depth"),
        ("ffn_dim", "feed_forward_dim"),
        ("text_dim", "text_dim"),
        ("freq_dim", "num_time_features"),
        ("in_channels", "channels"),
        ("out_channels", "channels"),
        ("patch_size", "patch_sides"),
    ),
    "native": (
        ("dim", "hidden_size"),
        ("num_heads", "num_heads"),
        ("num_layers", "depth"),
        ("ffn_dim", "feed_forward_dim"),
        ("freq_dim", "num_time_features"),
        ("text_len", "num_text_tokens"),
        ("in_dim", "channels"),
        ("out_dim", "channels"),
    ),
}
"""Entries of config.json and the fields or properties of `WanConfig` that they must equal."""
WAN_FIXED: Mapping[str, Mapping[str, Any]] = {
    "diffusers": {
        "_class_name": "WanTransformer3DModel",
        "added_kv_proj_dim": None,
        "cross_attn_norm": True,
        "eps": 1e-6,
        "image_dim": None,
        "qk_norm": "rms_norm_across_heads",
    },
    "native": {"_class_name": "WanModel", "eps": 1e-6, "model_type": "t2v"},
}
"""Entries of config.json that say that it is this network."""


def wan_rows(config: WanConfig, layout: str) -> list[KeyRow]:
    """Return the key table of a layout.

    Raises:
        ValueError: naming `layout` and the allowed ones.
    """
    check_choice("layout", layout, WAN_LAYOUTS)
    column = 1 + WAN_LAYOUTS.index(layout)
    rows = [row for linear in WAN_LINEARS for row in linear_rows(linear[column], linear[0])]
    rows += [KeyRow(f"{row[column]}.weight", f"{row[0]}/scale") for row in WAN_NORM_SCALES]
    rows += [KeyRow(f"{row[column]}.bias", f"{row[0]}/bias") for row in WAN_NORM_SHIFTS]
    rows += [KeyRow(row[column], row[0], WAN_TABLE_AXIS) for row in WAN_TABLES]
    return rows + patch_rows("patch_embedding", "stem/patch", config.patch_size)


def load_wan(
    folder: pathlib.Path,
    config: WanConfig,
    layout: str | None = None,
    params: Params | None = None,
) -> Params:
    """Read a folder of published weights.

    Args:
        folder: holds safetensors files, perhaps in shards with an index, perhaps a config.json.
        config: the network to fill.
        layout: one of `WAN_LAYOUTS`; None: the one with more of the file's names.
        params: shapes of the parameters with their shardings, to load onto devices; None: into the
            host's memory.

    Returns:
        The parameters, float32: numpy arrays, or device arrays.

    Raises:
        ValueError: naming what does not fit: an entry of config.json, or the first tensor that is
            missing, left over or of another shape.
    """
    shapes, tensors = params or abstract_wan_params(config), open_tensor_folder(folder)
    layout = layout or _layout_of(tensors.shapes, config, shapes)
    if (folder / "config.json").exists():
        fields, fixed = WAN_FIELDS[layout], WAN_FIXED[layout]
        check_config_file(folder / "config.json", config, fields, fixed=fixed)
    return read_published(tensors, wan_rows(config, layout), shapes)


def save_wan(
    folder: pathlib.Path,
    params: Params,
    config: WanConfig,
    layout: str = "diffusers",
    dtype: str = "float32",
) -> None:
    """Write parameters in a published layout, with a config.json.

    Args:
        folder: made if it is not there; must hold no safetensors.
        params: parameters of `config`'s network.
        config: the network.
        layout: one of `WAN_LAYOUTS`.
        dtype: stored type, float32, bfloat16 or float16.

    Raises:
        ValueError: for an unknown layout or type, or a folder that already holds safetensors.
    """
    fields = published_wan_fields(config, layout)
    write_published(folder, wan_rows(config, layout), params, dtype, fields)


def abstract_wan_params(config: WanConfig) -> Params:
    """Shapes and types of the parameters; nothing is allocated."""
    return jax.eval_shape(Wan(config).init, jax.random.key(0))


def published_wan_fields(config: WanConfig, layout: str) -> dict[str, Any]:
    """Return the entries of config.json that a layout's own library reads."""
    sizes = {name: getattr(config, ours) for name, ours in WAN_FIELDS[layout]}
    return {**sizes, **WAN_FIXED[layout]}


def _layout_of(names: Mapping[str, Any], config: WanConfig, shapes: Params) -> str:
    def num_known(layout: str) -> int:
        return sum(name in names for name in places(wan_rows(config, layout), shapes))

    return max(WAN_LAYOUTS, key=num_known)
