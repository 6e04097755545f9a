"""Folders of safetensors files, whole or sharded with an index, as published on model hubs.

Only safetensors are read: the format holds numbers and nothing that could run.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tpdiff_jax.files.durable import write_durably, writing
from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.files.json_schema import TEXT, TableOf, check_json

FILE_STEM = "diffusion_pytorch_model"
INDEX_FILE = f"{FILE_STEM}.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
STORED_TYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
"""Types that weights are written in, by name."""
READABLE_TYPES = (
    *("F64", "F32", "F16", "BF16", "BOOL"),
    *("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"),
)
"""Types, as the format calls them, that become parameters; quantised ones need their scales."""


@dataclass(frozen=True)
class TensorFolder:
    """The tensors of a folder by name; nothing is read before it is asked for.

    Attributes:
        path: the folder.
        file_of: tensor name -> file.
        shapes: tensor name -> shape.
    """

    path: pathlib.Path
    file_of: Mapping[str, pathlib.Path]
    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray:
        """Read one tensor in its stored type."""
        with safe_open(self.file_of[name], framework="numpy") as file:
            return file.get_tensor(name)


def open_tensor_folder(path: pathlib.Path) -> TensorFolder:
    """List the tensors of a folder.

    Where the folder has an index, the index says which files belong to it; otherwise all of its
    safetensors files do.

    Raises:
        ValueError: if there are no safetensors, a shard is missing or outside of the folder, a
            file is damaged, two files hold the same tensor, or one of a type that is not read.
    """
    files = _indexed_files(path) or sorted(path.glob("*.safetensors"))
    if not files:
        why = "other formats are not read" if path.is_dir() else "there is no such folder"
        raise ValueError(f"{path} holds no .safetensors file ({why})")
    file_of: dict[str, pathlib.Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        for name, shape in _shapes_of_file(file).items():
            if name in file_of:
                raise ValueError(f"{path}: {file_of[name].name} and {file.name} both hold {name!r}")
            file_of[name], shapes[name] = file, shape
    return TensorFolder(path, file_of, shapes)


def _indexed_files(path: pathlib.Path) -> list[pathlib.Path]:
    indices = sorted(path.glob("*.safetensors.index.json"))
    if not indices:
        return []
    if len(indices) > 1:
        raise ValueError(f"{path} holds several indices: {[index.name for index in indices]}")
    weight_map = read_json(indices[0]).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{indices[0]} must have a table `weight_map`")
    check_json(weight_map, TableOf(TEXT), f"{indices[0]}: weight_map")
    names = sorted(set(weight_map.values()))
    for name in names:
        if pathlib.PurePath(name).name != name:
            raise ValueError(f"{indices[0]} names {name!r}, which is not a file beside it")
        if not (path / name).is_file():
            raise ValueError(f"{path} lacks the shard {name!r} that its index names")
    return [path / name for name in names]


def _shapes_of_file(file: pathlib.Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(file, framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}
            check_readable(file, {name: part.get_dtype() for name, part in slices.items()})
            return {name: tuple(part.get_shape()) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} is not a readable safetensors file: {error}") from error


def check_readable(file: pathlib.Path, types: Mapping[str, str]) -> None:
    """Refuse types of numbers that cannot become parameters as they are, such as float8.

    Args:
        file: for the message.
        types: tensor name -> type, as the format calls it.

    Raises:
        ValueError: naming the first such tensor and its type.
    """
    wrong = [name for name, dtype in types.items() if dtype not in READABLE_TYPES]
    if wrong:
        raise ValueError(
            f"{file}: tensor {wrong[0]!r} is of type {types[wrong[0]]} ({len(wrong)} such in all); "
            f"allowed: {', '.join(READABLE_TYPES)}"
        )


def save_tensors(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write one safetensors file in one step, so that the same tensors give the same bytes.

    Args:
        path: the file.
        tensors: by name, contiguous.
        metadata: text by name; one entry at most, as the format's library orders more at random.

    Raises:
        ValueError: for more metadata.
        WriteError: when the disk is full or broken.
    """
    if metadata and len(metadata) > 1:
        raise ValueError(f"metadata has {len(metadata)} entries; allowed: 1")
    with writing(path) as temporary:
        save_file(dict(tensors), temporary, metadata=dict(metadata) if metadata else None)


def write_folder(
    path: pathlib.Path,
    sizes: Mapping[str, int],
    make: Callable[[str], np.ndarray],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors, in shards with an index where one file would be too large.

    Args:
        path: the folder; made if it is not there.
        sizes: tensor name -> bytes, in the order to write.
        make: tensor name -> array.
        shard_bytes: largest size of a file, unless one tensor alone is larger.

    Raises:
        ValueError: if the folder already holds safetensors.
        WriteError: when the disk is full or broken.
    """
    path.mkdir(parents=True, exist_ok=True)
    if any(path.glob("*.safetensors*")):
        raise ValueError(f"{path} already holds safetensors; choose another folder")
    shards = _shards(sizes, shard_bytes)
    if len(shards) == 1:
        save_tensors(path / f"{FILE_STEM}.safetensors", {name: make(name) for name in sizes})
        return
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"{FILE_STEM}-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_tensors(path / file, {name: make(name) for name in names})
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
    write_durably(path / INDEX_FILE, json.dumps(index, indent=2, sort_keys=True) + "\n")


def _shards(sizes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards
