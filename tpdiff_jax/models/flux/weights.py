"""Weights of the Flux transformer: two published layouts with the same tensor names.

    "pyramid_flow"  Pyramid-Flow's miniFLUX: a patch holds (row, column, channel), as here
    "diffusers"     diffusers' Flux pipelines: a patch holds (channel, row, column)

Queries, keys and values of one stream stand side by side in one matrix here. The last norm's
modulation is (scale, shift) in the files and (shift, scale) here, as in every other norm.
"""

import pathlib
from typing import Any

import jax
from einops import rearrange

from tpdiff_jax.checks import check_choice
from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.models import Flux, FluxConfig
from tpdiff_jax.types import Params
from tpdiff_jax.weights.config_files import check_config_file
from tpdiff_jax.weights.key_table import (
    HALVES_SWAPPED,
    TRANSPOSED,
    UNCHANGED,
    KeyRow,
    Transform,
    linear_rows,
)
from tpdiff_jax.weights.published_folder import read_published, write_published
from tpdiff_jax.weights.tensor_files import open_tensor_folder

CLASSES = {"pyramid_flow": "PyramidFluxTransformer", "diffusers": "FluxTransformer2DModel"}
FLUX_LAYOUTS = tuple(CLASSES)
Q, K, V = (0, 3), (1, 3), (2, 3)
DOUBLE, SINGLE = "transformer_blocks.{layer}", "single_transformer_blocks.{layer}"

LINEARS: tuple[tuple[str, str, tuple[int, int]], ...] = (
    ("context_embedder", "stem/text", (0, 1)),
    ("time_text_embed.timestep_embedder.linear_1", "stem/time/inner", (0, 1)),
    ("time_text_embed.timestep_embedder.linear_2", "stem/time/outer", (0, 1)),
    ("time_text_embed.text_embedder.linear_1", "stem/pooled/inner", (0, 1)),
    ("time_text_embed.text_embedder.linear_2", "stem/pooled/outer", (0, 1)),
    (f"{DOUBLE}.norm1.linear", "double_blocks/video/modulation", (0, 1)),
    (f"{DOUBLE}.norm1_context.linear", "double_blocks/text/modulation", (0, 1)),
    (f"{DOUBLE}.attn.to_q", "double_blocks/video/attention/qkv", Q),
    (f"{DOUBLE}.attn.to_k", "double_blocks/video/attention/qkv", K),
    (f"{DOUBLE}.attn.to_v", "double_blocks/video/attention/qkv", V),
    (f"{DOUBLE}.attn.to_out.0", "double_blocks/video/attention/out", (0, 1)),
    (f"{DOUBLE}.attn.add_q_proj", "double_blocks/text/attention/qkv", Q),
    (f"{DOUBLE}.attn.add_k_proj", "double_blocks/text/attention/qkv", K),
    (f"{DOUBLE}.attn.add_v_proj", "double_blocks/text/attention/qkv", V),
    (f"{DOUBLE}.attn.to_add_out", "double_blocks/text/attention/out", (0, 1)),
    (f"{DOUBLE}.ff.net.0.proj", "double_blocks/video/feed_forward/inner", (0, 1)),
    (f"{DOUBLE}.ff.net.2", "double_blocks/video/feed_forward/outer", (0, 1)),
    (f"{DOUBLE}.ff_context.net.0.proj", "double_blocks/text/feed_forward/inner", (0, 1)),
    (f"{DOUBLE}.ff_context.net.2", "double_blocks/text/feed_forward/outer", (0, 1)),
    (f"{SINGLE}.norm.linear", "single_blocks/modulation", (0, 1)),
    (f"{SINGLE}.attn.to_q", "single_blocks/attention/qkv", Q),
    (f"{SINGLE}.attn.to_k", "single_blocks/attention/qkv", K),
    (f"{SINGLE}.attn.to_v", "single_blocks/attention/qkv", V),
    (f"{SINGLE}.proj_mlp", "single_blocks/inner", (0, 1)),
    (f"{SINGLE}.proj_out", "single_blocks/outer", (0, 1)),
)
NORM_SCALES: tuple[tuple[str, str], ...] = (
    (f"{DOUBLE}.attn.norm_q.weight", "double_blocks/video/attention/q_norm/scale"),
    (f"{DOUBLE}.attn.norm_k.weight", "double_blocks/video/attention/k_norm/scale"),
    (f"{DOUBLE}.attn.norm_added_q.weight", "double_blocks/text/attention/q_norm/scale"),
    (f"{DOUBLE}.attn.norm_added_k.weight", "double_blocks/text/attention/k_norm/scale"),
    (f"{SINGLE}.attn.norm_q.weight", "single_blocks/attention/q_norm/scale"),
    (f"{SINGLE}.attn.norm_k.weight", "single_blocks/attention/k_norm/scale"),
)
FLUX_FIELDS: tuple[tuple[str, str], ...] = (
    ("num_layers", "num_double_blocks"),
    ("num_single_layers", "num_single_blocks"),
    ("num_attention_heads", "num_heads"),
    ("attention_head_dim", "head_dim"),
    ("axes_dims_rope", "rope_dims"),
    ("in_channels", "patch_dim"),
    ("joint_attention_dim", "text_dim"),
    ("pooled_projection_dim", "pooled_dim"),
)
"""Entries of config.json and the fields or properties of `FluxConfig` that they must equal."""
MADE_OF = {
    "head_dim": ", the sum of model.rope_dims",
    "patch_dim": ", the square of model.patch_size times the channels of the clips",
}
"""What in a config decides a property."""


def flux_rows(config: FluxConfig, layout: str) -> list[KeyRow]:
    """Return the key table of a layout.

    Raises:
        ValueError: naming `layout` and the allowed ones.
    """
    check_choice("layout", layout, FLUX_LAYOUTS)
    rows = [row for linear in LINEARS for row in linear_rows(*linear)]
    rows += [KeyRow(tensor, param) for tensor, param in NORM_SCALES]
    rows += linear_rows("norm_out.linear", "head/modulation", outputs=HALVES_SWAPPED)
    patch = UNCHANGED if layout == "pyramid_flow" else _channels_last(config.patch_size)
    inputs = patch.then(TRANSPOSED)  # a linear layer's inputs are the last axis in the files
    rows += [KeyRow("x_embedder.weight", "stem/patch/kernel", inputs)]
    rows += [KeyRow("x_embedder.bias", "stem/patch/bias")]
    return rows + linear_rows("proj_out", "head/patch", outputs=patch)


def _channels_last(patch_size: int) -> Transform:
    sizes = {"p": patch_size, "q": patch_size}
    return Transform(
        lambda x: rearrange(x, "... (c p q) -> ... (p q c)", **sizes),
        lambda x: rearrange(x, "... (p q c) -> ... (c p q)", **sizes),
    )


def load_flux(
    folder: pathlib.Path,
    config: FluxConfig,
    layout: str | None = None,
    params: Params | None = None,
) -> Params:
    """Read a folder of published weights.

    Args:
        folder: holds safetensors files, perhaps in shards with an index, perhaps a config.json.
        config: the network to fill.
        layout: one of `FLUX_LAYOUTS`; None: the one whose class config.json names.
        params: shapes of the parameters with their shardings, to load onto devices; None: into the
            host's memory.

    Returns:
        The parameters, float32: numpy arrays, or device arrays.

    Raises:
        ValueError: naming what does not fit: an entry of config.json, or the first tensor that is
            missing, left over or of another shape.
    """
    layout = layout or _layout_of(folder / "config.json")
    if (folder / "config.json").exists():
        check_config_file(folder / "config.json", config, FLUX_FIELDS, MADE_OF)
    shapes, rows = params or abstract_flux_params(config), flux_rows(config, layout)
    return read_published(open_tensor_folder(folder), rows, shapes)


def save_flux(
    folder: pathlib.Path, params: Params, config: FluxConfig, layout: str, dtype: str = "float32"
) -> None:
    """Write parameters in a published layout, with a config.json.

    Args:
        folder: made if it is not there; must hold no safetensors.
        params: parameters of `config`'s network.
        config: the network.
        layout: one of `FLUX_LAYOUTS`.
        dtype: stored type, float32, bfloat16 or float16.

    Raises:
        ValueError: for an unknown layout or type, or a folder that already holds safetensors.
    """
    fields = published_flux_fields(config, layout)
    write_published(folder, flux_rows(config, layout), params, dtype, fields)


def abstract_flux_params(config: FluxConfig) -> Params:
    """Shapes and types of the parameters; nothing is allocated."""
    return jax.eval_shape(Flux(config).init, jax.random.key(0))


def published_flux_fields(config: FluxConfig, layout: str) -> dict[str, Any]:
    """Return the entries of config.json that a layout's own library reads."""
    fields: dict[str, Any] = {name: getattr(config, ours) for name, ours in FLUX_FIELDS}
    fields |= {"patch_size": 1}  # patches are cut before the network there
    fields |= {"_class_name": CLASSES[layout]}
    if layout == "diffusers":
        return fields | {"guidance_embeds": False}
    return fields | {
        "interp_condition_pos": True,
        "use_flash_attn": False,
        "use_temporal_causal": config.is_causal,
    }


def _layout_of(path: pathlib.Path) -> str:
    found = read_json(path).get("_class_name")
    for layout, name in CLASSES.items():
        if name == found:
            return layout
    raise ValueError(f"{path} says _class_name={found!r}; read are {', '.join(CLASSES.values())}")
