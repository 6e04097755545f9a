"""Weights of the video DiT: a layout of its own, in the form of diffusers' folders.

    config.json                            _class_name "VideoDiT", and the shape of the network
    diffusion_pytorch_model.safetensors    tensors, or shards of them with an index

A tensor is called by the path of its parameter, dots between its parts, and a number behind
`blocks` counts the layers, which are stacked here:

    stem/patch/bias                     [d]            stem.patch.bias
    stem/label/table                    [labels, d]    stem.label.weight
    blocks/attention/time/q_norm/scale  [n, d]         blocks.0.attention.time.q_norm.weight, ...
    blocks/attention/time/qkv/kernel    [n, in, out]   blocks.0.attention.time.qkv.weight [out, in]

Levels' parameters are counted likewise, `down_0.0.first.weight [out, 9 in]`; those of `folds`, and
of what comes before and behind the blocks, are not.

Matrices lie as PyTorch keeps them, so adapters in the layouts peft and diffusers have the same
names. What only says how to compute (`dtype`, `remat`, `scan_layers`, `attention_kernel`) is not
in config.json.
"""

import dataclasses
import pathlib

import jax

from tpdiff_jax.checks import check_choice, naming
from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.models import VideoDiT, VideoDiTConfig
from tpdiff_jax.types import Params
from tpdiff_jax.weights.config_files import check_config_file, shape_of_fields
from tpdiff_jax.weights.key_table import (
    LAYER,
    TRANSPOSED,
    UNCHANGED,
    KeyRow,
    flatten_params,
)
from tpdiff_jax.weights.published_folder import read_published, write_published
from tpdiff_jax.weights.tensor_files import open_tensor_folder

VIDEO_DIT_LAYOUTS = ("tpdiff",)
_CLASS = {"_class_name": "VideoDiT"}
_FREE = ("attention_kernel", "dtype", "scan_layers", "remat")
_FIELDS = tuple(f.name for f in dataclasses.fields(VideoDiTConfig) if f.name not in _FREE)
_SINCE = ("level_channels",)  # files of earlier builds lack it: they have no levels
_ENDINGS = {"kernel": "weight", "scale": "weight", "table": "weight", "bias": "bias"}


def video_dit_rows(params: Params) -> list[KeyRow]:
    """Return the key table.

    Args:
        params: of the network, or their shapes.
    """
    rows = []
    for path in flatten_params(params):
        *parts, kind = path.split("/")
        if parts[0] not in ("stem", "head", "folds"):
            parts.insert(1, LAYER)
        transform = TRANSPOSED if kind == "kernel" else UNCHANGED
        rows.append(KeyRow(".".join([*parts, _ENDINGS[kind]]), path, transform))
    return rows


def save_video_dit(
    folder: pathlib.Path, params: Params, config: VideoDiTConfig, layout: str, dtype: str
) -> None:
    """Write parameters with a config.json.

    Args:
        folder: made if it is not there; must hold no safetensors.
        params: parameters of `config`'s network.
        config: the network.
        layout: one of `VIDEO_DIT_LAYOUTS`.
        dtype: stored type, float32, bfloat16 or float16.

    Raises:
        ValueError: for an unknown layout or type, or a folder that already holds safetensors.
    """
    check_choice("layout", layout, VIDEO_DIT_LAYOUTS)
    fields = {name: getattr(config, name) for name in _FIELDS} | _CLASS
    write_published(folder, video_dit_rows(params), params, dtype, fields)


def load_video_dit(
    folder: pathlib.Path, config: VideoDiTConfig, params: Params | None = None
) -> Params:
    """Read a folder that `save_video_dit` has written.

    Args:
        folder: holds safetensors files, perhaps in shards with an index, and a config.json.
        config: the network to fill.
        params: shapes of the parameters with their shardings, to load onto devices; None: into the
            host's memory.

    Returns:
        The parameters, float32: numpy arrays, or device arrays.

    Raises:
        ValueError: naming what does not fit: an entry of config.json, or the first tensor that is
            missing, left over or of another shape.
    """
    if (path := folder / "config.json").exists():
        check_config_file(path, config, ((name, name) for name in _FIELDS), fixed=_CLASS)
    shapes = params or jax.eval_shape(VideoDiT(config).init, jax.random.key(0))
    return read_published(open_tensor_folder(folder), video_dit_rows(shapes), shapes)


def read_video_dit_config(folder: pathlib.Path) -> VideoDiTConfig:
    """Return the shape that a folder's config.json states, computed in float32.

    Raises:
        ValueError: when there is none, or it states no such network.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no config.json")
    fields = read_json(path)
    if wrong := {name: fields.get(name) for name in _CLASS if fields.get(name) != _CLASS[name]}:
        raise ValueError(f"{path} says {wrong}; read is {_CLASS}")
    missing = [name for name in _FIELDS if fields.get(name) is None and name not in _SINCE]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    try:
        with naming(str(path)):
            shape = shape_of_fields(path, fields, ((name, name) for name in _FIELDS))
            return VideoDiTConfig(**shape)
    except TypeError as error:  # a value of another type than the field's
        raise ValueError(f"{path} does not fit a video DiT: {error}") from error
