"""Weights of AnimateDiff in diffusers' folders, and motion modules under AnimateDiff's own names.

    "separate"  unet/ (Stable Diffusion's U-Net) and motion_adapter/
    "combined"  unet/ with all of it, as diffusers' UNetMotionModel
    "original"  unet/, and motion_adapter/ with AnimateDiff's own names

Reading tells them apart by their tensors. The tables of positions are computed here; those of a
file are only compared. Writing copies them from the folder that the weights came from, where there
is one, so that every tensor comes out as it went in.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from tpdiff_jax.checks import check_choice
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.models.animatediff.config import AnimateDiffConfig
from tpdiff_jax.models.animatediff.network import AnimateDiff
from tpdiff_jax.models.animatediff.positions import embed_positions
from tpdiff_jax.models.animatediff.weight_rows import (
    MOTION,
    animatediff_rows,
    name_in_diffusers,
    original_names,
    position_names,
)
from tpdiff_jax.types import Params, PRNGKey
from tpdiff_jax.weights.config_files import check_only_read_as
from tpdiff_jax.weights.key_table import (
    check_tensors,
    export_tensor,
    flatten_params,
    import_params,
    places,
)
from tpdiff_jax.weights.tensor_files import STORED_TYPES, open_tensor_folder, write_folder

ANIMATEDIFF_LAYOUTS = ("separate", "combined", "original")
UNET, ADAPTER = "unet", "motion_adapter"
POSITION_TOLERANCE = 5e-3  # of files in half precision
UNET_ONLY: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("_class_name", ("UNet2DConditionModel", "UNetMotionModel", "MotionAdapter")),
    ("act_fn", ("silu",)),
    ("center_input_sample", (False,)),
    ("cross_attention_norm", (None,)),
    ("downsample_padding", (1,)),
    ("flip_sin_to_cos", (True,)),
    ("freq_shift", (0,)),
    ("mid_block_scale_factor", (1,)),
    ("norm_eps", (1e-5,)),
    ("resnet_out_scale_factor", (1,)),
    ("resnet_skip_time_act", (False,)),
    ("resnet_time_scale_shift", ("default",)),
    ("time_embedding_act_fn", (None,)),
    ("time_embedding_type", ("positional",)),
    ("timestep_post_act", (None,)),
    ("use_linear_projection", (False,)),
)
"""Entries of a config.json that other U-Nets have other values of, most with the same tensors."""
SAMPLE_SIZE = 64  # latents along a side that diffusers samples where nobody says: SD 1.5's


class Tensors(NamedTuple):
    """Tensors under diffusers' names for both parts together.

    Attributes:
        shapes: tensor name -> shape.
        read: tensor name -> array.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def load_animatediff(
    folder: pathlib.Path,
    config: AnimateDiffConfig,
    params: Params | None = None,
    key: PRNGKey | None = None,
) -> Params:
    """Read a folder of published weights, in any layout.

    Args:
        folder: holds `unet/` and, unless that has motion modules too, `motion_adapter/`.
        config: the network to fill.
        params: shapes of the parameters with their shardings, to load onto devices; None: into the
            host's memory.
        key: of the motion modules of a folder without any, which start as if they were not there;
            None refuses such a folder.

    Returns:
        The parameters, float32: numpy arrays, or device arrays.

    Raises:
        ValueError: naming what does not fit: an entry of a config.json, or the first tensor that
            is missing, left over, of another shape or another table of positions.
    """
    for part in (UNET, ADAPTER):
        if (folder / part / "config.json").exists():
            _check_config(folder / part / "config.json", config)
    shapes, fresh = flatten_dict(dict(params or abstract_animatediff_params(config))), {}
    rows, tensors = animatediff_rows(config), open_tensors(folder)
    if key is not None and not any(MOTION in name for name in tensors.shapes):
        logging.warning("%s holds no motion modules: they start fresh", folder)
        fresh = _fresh_motion(config, shapes, key)
        rows = [row for row in rows if MOTION not in row.tensor]
    stored = unflatten_dict({path: leaf for path, leaf in shapes.items() if path not in fresh})
    found = places(rows, stored)
    positions = position_names(config)
    learned = {name: shape for name, shape in tensors.shapes.items() if name not in positions}
    check_tensors(found, learned, str(folder))
    for name in positions:
        if name in tensors.shapes:
            _check_positions(folder, name, tensors.read(name), config, positions[name])
    loaded = import_params(found, tensors.read, stored)
    return unflatten_dict(flatten_dict(dict(loaded)) | fresh)


def _fresh_motion(
    config: AnimateDiffConfig, shapes: Mapping[tuple[str, ...], Any], key: PRNGKey
) -> dict[tuple[str, ...], Any]:
    """Return the motion modules of a fresh network by path; nothing else of it is made."""
    of_motion = {path: leaf.sharding for path, leaf in shapes.items() if "motion" in path}

    def init(key: PRNGKey) -> dict[tuple[str, ...], Any]:
        params = flatten_dict(dict(AnimateDiff(config).init(key)))
        return {path: params[path] for path in of_motion}

    return jax.jit(init, out_shardings=of_motion)(key)


def save_animatediff(
    folder: pathlib.Path,
    params: Params,
    config: AnimateDiffConfig,
    layout: str = "separate",
    dtype: str = "float32",
    source: pathlib.Path | None = None,
) -> None:
    """Write parameters in a published layout, with a config.json for each part.

    Args:
        folder: made if it is not there; its parts must hold no safetensors.
        params: parameters of `config`'s network.
        config: the network.
        layout: one of `ANIMATEDIFF_LAYOUTS`.
        dtype: stored type, float32, bfloat16 or float16.
        source: the folder that the weights came from, to copy its tables of positions.

    Raises:
        ValueError: for an unknown layout or type, or a folder that already holds safetensors.
    """
    check_choice("layout", layout, ANIMATEDIFF_LAYOUTS)
    check_choice("dtype", dtype, STORED_TYPES)
    found, leaves = places(animatediff_rows(config), params), flatten_params(params)
    stored, positions = STORED_TYPES[dtype], position_names(config)
    published = None if source is None else open_tensors(source)

    def make(name: str) -> np.ndarray:
        if name not in positions:
            return export_tensor(leaves, found[name], stored)
        if published is not None and name in published.shapes:
            return published.read(name).astype(stored)
        return position_table(config, positions[name]).astype(stored)

    def num_bytes(name: str) -> int:
        is_learned = name not in positions
        shape = found[name].shape if is_learned else (config.motion.num_positions, positions[name])
        return int(np.prod(shape)) * stored.itemsize

    for part, name_of in _parts(layout, [*found, *positions]).items():
        sizes = {written: num_bytes(name) for written, name in name_of.items()}
        write_folder(folder / part, sizes, functools.partial(_make_written, make, name_of))
        fields = published_animatediff_fields(config, part, layout)
        text = json.dumps(fields, indent=2, sort_keys=True)
        write_durably(folder / part / "config.json", text + "\n")


def _make_written(
    make: Callable[[str], np.ndarray], name_of: Mapping[str, str], written: str
) -> np.ndarray:
    return make(name_of[written])


def abstract_animatediff_params(config: AnimateDiffConfig) -> Params:
    """Shapes and types of the parameters; nothing is allocated."""
    return jax.eval_shape(AnimateDiff(config).init, jax.random.key(0))


def position_table(config: AnimateDiffConfig, channels: int) -> np.ndarray:
    """Return a motion module's table of positions, [1, positions, channels] float32."""
    return np.asarray(embed_positions(np.arange(config.motion.num_positions), channels))[None]


def open_tensors(folder: pathlib.Path) -> Tensors:
    """List the tensors of a folder in any layout, under diffusers' names.

    Raises:
        ValueError: when a part is missing or damaged, or a name is none that a part could have.
    """
    unet = open_tensor_folder(folder / UNET)
    sources = {name: (unet, name) for name in unet.shapes}
    if (folder / ADAPTER).is_dir() and not any(MOTION in name for name in sources):
        adapter = open_tensor_folder(folder / ADAPTER)
        for name in adapter.shapes:
            sources.setdefault(name_in_diffusers(name), (adapter, name))
    shapes = {name: part.shapes[stored] for name, (part, stored) in sources.items()}

    def read(name: str) -> np.ndarray:
        part, stored = sources[name]
        return part.read(stored)

    return Tensors(shapes, read)


def published_animatediff_fields(
    config: AnimateDiffConfig, part: str, layout: str
) -> dict[str, Any]:
    """Return the entries of a part's config.json that diffusers reads.

    Args:
        config: of the network.
        part: folder of the part, such as `ADAPTER`.
        layout: one of `ANIMATEDIFF_LAYOUTS`.

    Returns:
        Names and values, as JSON holds them.
    """
    last = config.num_levels - 1
    motion = {
        "motion_max_seq_length": config.motion.num_positions,
        "motion_num_attention_heads": config.num_heads,
        "use_motion_mid_block": config.motion.is_in_middle,
    }
    if part == ADAPTER:
        return motion | {
            "_class_name": "MotionAdapter",
            "block_out_channels": config.level_channels,
            "motion_layers_per_block": config.level_depth,
            "motion_norm_num_groups": config.num_groups,
        }
    suffix = "Motion" if layout == "combined" else "2D"
    fields = {
        "block_out_channels": config.level_channels,
        "cross_attention_dim": config.text_dim,
        "down_block_types": [f"CrossAttnDownBlock{suffix}"] * last + [f"DownBlock{suffix}"],
        "in_channels": config.channels,
        "layers_per_block": config.level_depth,
        "norm_num_groups": config.num_groups,
        "out_channels": config.channels,
        "sample_size": SAMPLE_SIZE,
        "up_block_types": [f"UpBlock{suffix}"] + [f"CrossAttnUpBlock{suffix}"] * last,
    }
    if layout == "combined":
        own = {"_class_name": "UNetMotionModel", "num_attention_heads": config.num_heads}
        return fields | motion | own
    # In this class the field is the number of heads, whatever its name says.
    return fields | {"_class_name": "UNet2DConditionModel", "attention_head_dim": config.num_heads}


def _parts(layout: str, names: list[str]) -> dict[str, dict[str, str]]:
    """Return for each part of a layout: name in its file -> name in diffusers' two parts."""
    if layout == "combined":
        return {UNET: {name: name for name in names}}
    of_motion = [name for name in names if MOTION in name]
    adapter = {
        written: name
        for name in of_motion
        for written in (original_names(name) if layout == "original" else (name,))
    }
    return {UNET: {name: name for name in names if MOTION not in name}, ADAPTER: adapter}


def _check_positions(
    folder: pathlib.Path, name: str, table: np.ndarray, config: AnimateDiffConfig, channels: int
) -> None:
    expected = position_table(config, channels)
    if table.shape != expected.shape:
        raise ValueError(
            f"{folder}: tensor {name!r} has shape {table.shape}, "
            f"model.motion_form={config.motion_form!r} needs {expected.shape}"
        )
    if not np.abs(table.astype(np.float32) - expected).max() < POSITION_TOLERANCE:
        raise ValueError(f"{folder}: tensor {name!r} holds other positions than the sinusoids")


def _check_config(path: pathlib.Path, config: AnimateDiffConfig) -> None:
    """Compare what leaves no trace in the tensors' shapes: heads, groups, kinds of layers."""
    fields = read_json(path)
    check_only_read_as(path, fields, UNET_ONLY)
    heads, groups = ("num_heads", config.num_heads), ("num_groups", config.num_groups)
    for name, (ours, expected) in {
        "num_attention_heads": heads,
        "attention_head_dim": heads,
        "motion_num_attention_heads": heads,
        "norm_num_groups": groups,
        "motion_norm_num_groups": groups,
    }.items():
        if fields.get(name) not in (None, expected):
            raise ValueError(f"{path} says {name}={fields[name]}, the config has {ours}={expected}")
