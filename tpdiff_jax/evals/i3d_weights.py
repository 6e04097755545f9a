"""Weights of I3D: published names to this project's parameters, and one file of our own.

Published names are read, whatever punctuation they come with:

    RGB/inception_i3d/Mixed_3b/Branch_1/Conv3d_0a_1x1/{conv_3d/w, batch_norm/moving_mean, ...}
    Mixed_3b.b1a.{conv3d.weight, bn.running_mean, ...}, logits.conv3d.{weight, bias}
    mixed_3b.branch_1.0.{conv3d.weight, batch3d.running_mean, ...}, conv3d_0c_1x1.conv3d.weight

The two convolutions of a branch are told apart by their kernels, not by their names: the graph's
Mixed_5b calls both of branch 2 `Conv3d_0a`. Convolutions may come as [out, in, t, h, w] or
[t, h, w, in, out]. The file that is written holds numbers only and says what they came from.
"""

import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from tpdiff_jax.evals.i3d import LOGITS, STEM_UNITS, UnitShape, unit_shapes
from tpdiff_jax.files.json_files import parse_json
from tpdiff_jax.files.json_schema import TEXT, TableOf
from tpdiff_jax.types import Params
from tpdiff_jax.weights.tensor_files import check_readable, save_tensors
from tpdiff_jax.weights.weight_hash import hash_tensors

_LEAVES = (  # endings of a name, in lower case with dots -> what the tensor is
    (re.compile(r"\.?conv_?3d\.(weight|w)$"), "kernel"),
    (re.compile(r"\.?conv_?3d\.(bias|b)$"), "bias"),
    (re.compile(r"\.(bn|batch3d|batch_norm)\.(weight|gamma)$"), "scale"),
    (re.compile(r"\.(bn|batch3d|batch_norm)\.(bias|beta)$"), "beta"),
    (re.compile(r"\.(bn|batch3d|batch_norm)\.(running|moving)_mean$"), "mean"),
    (re.compile(r"\.(bn|batch3d|batch_norm)\.(running_var|moving_variance)$"), "variance"),
    (re.compile(r"\.(bn|batch3d|batch_norm)\.num_batches_tracked$"), "unused"),
)
_MIXED = re.compile(r"mixed_(\d[b-f])\.(?:b|branch_)(\d)")
_ORIGIN = "origin"  # the one entry of metadata: more would be written in random order
_NORMALISATION = ("mean", "variance", "beta")


class I3DWeights(NamedTuple):
    """Parameters and where they come from.

    Attributes:
        params: what `i3d_logits` takes.
        sha256: of the tensors, whatever file they were read from.
        source: file name and SHA-256 of the published weights that it was made from.
    """

    params: dict[str, Params]
    sha256: str
    source: dict[str, str]


def params_from_tensors(tensors: Mapping[str, np.ndarray], width: float = 1.0) -> dict[str, Params]:
    """Return I3D's parameters from tensors with published names.

    Args:
        tensors: name -> array.
        width: share of the published channels.

    Raises:
        ValueError: naming every tensor that is no part of an I3D, or is missing, or the first of
            another shape.
    """
    groups, unknown = _group_by_unit(tensors)
    if unknown:
        raise ValueError(f"these tensors are no part of an I3D: {_listed(unknown)}")
    return _params_from_groups(groups, width)


def _params_from_groups(
    groups: Mapping[str, Mapping[str, np.ndarray]], width: float
) -> dict[str, Params]:
    params = {
        name: _unit_params(name, groups.get(name, {}), shape)
        for name, shape in unit_shapes(width).items()
    }
    missing = [
        f"{name} ({role})"
        for name, unit in params.items()
        for role in ("kernel", *(("bias",) if name == LOGITS else _NORMALISATION))
        if role not in unit
    ]
    if missing:
        raise ValueError(f"these tensors of an I3D are missing: {_listed(missing)}")
    return params


def _group_by_unit(
    tensors: Mapping[str, np.ndarray],
) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """Tensors by unit and role, and the names that fit none."""
    found: dict[str, dict[str, np.ndarray]] = {}  # prefix in the file -> role -> tensor
    unknown = []
    for name, tensor in tensors.items():
        dotted = name.lower().removesuffix(":0").replace("/", ".")
        for pattern, role in _LEAVES:
            if match := pattern.search(dotted):
                found.setdefault(dotted[: match.start()], {})[role] = np.asarray(tensor)
                break
        else:
            unknown.append(name)
    groups: dict[str, dict[str, np.ndarray]] = {}
    for prefix, unit in found.items():
        place = _unit_name(prefix, unit)
        if place is None or place in groups:
            unknown.append(prefix)
        else:
            groups[place] = {role: a for role, a in unit.items() if role != "unused"}
    return groups, unknown


def _unit_name(prefix: str, unit: Mapping[str, np.ndarray]) -> str | None:
    """The unit that a prefix means, from its name and, within a branch, from its kernel."""
    if match := _MIXED.search(prefix):
        branch, kernel = match[2], unit.get("kernel")
        if kernel is None or branch not in "0123":
            return None
        is_second = branch == "3" or 27 in (
            math.prod(kernel.shape[:3]),
            math.prod(kernel.shape[2:]),
        )
        letter = "" if branch == "0" else "b" if is_second else "a"
        return f"Mixed_{match[1]}/b{branch}{letter}"
    for name in STEM_UNITS:
        if name.lower() in prefix:
            return name
    return LOGITS if "logits" in prefix or "conv3d_0c_1x1" in prefix else None


def _unit_params(name: str, unit: Mapping[str, np.ndarray], shape: UnitShape) -> Params:
    out = {}
    for role, tensor in unit.items():
        array = tensor.reshape(-1) if role != "kernel" else tensor
        if role == "kernel" and array.ndim == 5 and array.shape != shape.kernel:
            array = array.transpose(2, 3, 4, 1, 0)
        needed = shape.kernel if role == "kernel" else (shape.outputs,)
        if array.shape != needed:
            raise ValueError(f"{name} ({role}) has shape {tensor.shape}; I3D needs {needed}")
        out[role] = np.ascontiguousarray(array, np.float32)
    return out


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


def save_i3d(path: pathlib.Path, params: Mapping[str, Params], source: Mapping[str, str]) -> None:
    """Write parameters as safetensors, with their origin in the header.

    Args:
        path: file to write, in one step.
        params: arrays by unit and role.
        source: what they were made from: text by name, such as a file's hash.
    """
    tensors = {f"{name}.{role}": a for name, unit in params.items() for role, a in unit.items()}
    save_tensors(path, tensors, {_ORIGIN: json.dumps(dict(source), sort_keys=True)})


def load_i3d(path: pathlib.Path, width: float = 1.0) -> I3DWeights:
    """Read what `save_i3d` has written.

    Raises:
        ValueError: when the file is not readable, or holds other tensors.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file; tpdiff_jax.evals.convert_i3d makes one")
    try:
        with safe_open(path, framework="numpy") as file:
            source = _read_source(path, dict(file.metadata() or {}))
            names = list(file.keys())
            check_readable(path, {name: file.get_slice(name).get_dtype() for name in names})
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        unit, _, role = name.rpartition(".")
        groups.setdefault(unit, {})[role] = tensor
    if unknown := sorted(groups.keys() - unit_shapes(width).keys()):
        raise ValueError(f"{path}: these tensors are no part of an I3D: {_listed(unknown)}")
    return I3DWeights(_params_from_groups(groups, width), hash_tensors([path]), source)


def _read_source(path: pathlib.Path, metadata: dict[str, str]) -> dict[str, str]:
    """What the parameters were made from; files of earlier versions have an entry for each fact."""
    if _ORIGIN not in metadata:
        return metadata
    return parse_json(metadata[_ORIGIN], TableOf(TEXT), f"{path}: its metadata")
