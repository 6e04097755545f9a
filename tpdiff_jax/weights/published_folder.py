"""A folder as a network's own library reads it: tensors under published names, and config.json."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tpdiff_jax.checks import check_choice
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.types import Params
from tpdiff_jax.weights.key_table import (
    KeyRow,
    check_tensors,
    export_tensor,
    flatten_params,
    import_params,
    places,
)
from tpdiff_jax.weights.tensor_files import STORED_TYPES, TensorFolder, write_folder


def read_published(
    tensors: TensorFolder,
    rows: Sequence[KeyRow],
    shapes: Params,
    stored: Mapping[str, str] | None = None,
) -> Params:
    """Read parameters from the tensors of a folder, all of which must be used.

    Args:
        tensors: of the folder.
        rows: key table of the layout.
        shapes: of the parameters, with their shardings to load onto devices; without: into the
            host's memory.
        stored: names in `rows` -> those in the file, without tensors that are passed over; None:
            the file has the table's names.

    Returns:
        The parameters, float32: numpy arrays, or device arrays.

    Raises:
        ValueError: naming the first tensor that is missing, left over or of another shape.
    """
    names = {name: name for name in tensors.shapes} if stored is None else stored
    found = places(rows, shapes)
    there = {name: tensors.shapes[theirs] for name, theirs in names.items()}
    check_tensors(found, there, str(tensors.path))
    return import_params(found, lambda name: tensors.read(names[name]), shapes)


def write_published(
    folder: pathlib.Path,
    rows: Sequence[KeyRow],
    params: Params,
    dtype: str,
    fields: Mapping[str, Any],
) -> None:
    """Write parameters in a published layout, with a config.json.

    Args:
        folder: made if it is not there; must hold no safetensors.
        rows: key table of the layout.
        params: of the network.
        dtype: stored type, a key of `STORED_TYPES`.
        fields: entries of config.json.

    Raises:
        ValueError: for an unknown type, a key table of other parameters, or a folder that already
            holds safetensors.
        WriteError: when the disk is full or broken.
    """
    check_choice("dtype", dtype, STORED_TYPES)
    found, leaves, stored = places(rows, params), flatten_params(params), STORED_TYPES[dtype]
    sizes = {name: int(np.prod(p.shape)) * stored.itemsize for name, p in found.items()}
    write_folder(folder, sizes, lambda name: export_tensor(leaves, found[name], stored))
    write_durably(folder / "config.json", json.dumps(fields, indent=2, sort_keys=True) + "\n")
