"""The identity of weights: one hash of their tensors, whatever files these lie in.

The same tensors come in files of many bytes: safetensors writes metadata in random order, and hubs
publish one file or several with an index. A tensor counts by name, type, shape and bytes, which are
hashed as they lie in the file; so types that numpy lacks are no obstacle.
"""

import hashlib
import json
import pathlib
import struct
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from tpdiff_jax.files.durable import sha256_of_file
from tpdiff_jax.files.json_files import parse_json, sha256_of_lines
from tpdiff_jax.files.json_schema import ANY, COUNT, TEXT, ListOf, Schema, TableOf, check_json

SUFFIXES = (".json", ".txt", ".model")
"""Configs and vocabularies beside the weights; what else a published folder holds is not read."""
_WEIGHTS, _INDEX = ".safetensors", ".safetensors.index.json"
_METADATA = "__metadata__"
_HEADER_BYTES = 10**8  # of a header, at most: the format's own limit
_CHUNK = 2**20
_TENSOR: dict[str, Schema] = {"dtype": TEXT, "shape": ListOf(COUNT), "data_offsets": ListOf(COUNT)}


def hash_folders(root: pathlib.Path, names: Iterable[str] = (".",)) -> str:
    """Return the SHA-256 of what folders below `root` hold: tensors, and other files' contents.

    Raises:
        ValueError: when a folder is not there, or holds a file that is no safetensors file.
    """
    lines: list[str] = []
    for name in names:
        folder = root / name
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder of weights")
        files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
        lines += [
            f"{name}/{path.name} {sha256_of_file(path)}"
            for path in files
            if not path.name.endswith(_INDEX)
        ]
        lines.append(f"{name} {hash_tensors(sorted(folder.glob(f'*{_WEIGHTS}')))}")
    return sha256_of_lines(lines)


def hash_tensors(files: Iterable[pathlib.Path]) -> str:
    """Return the SHA-256 of the tensors of safetensors files, in the order of their names.

    Raises:
        ValueError: for a file that is none.
    """
    return sha256_of_lines(sorted(line for file in files for line in _tensor_lines(file)))


def _tensor_lines(path: pathlib.Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            header, start = _read_header(file, path)
            for name, tensor in header.items():
                begin, end = tensor["data_offsets"]
                file.seek(start + begin)
                digest = _hash_bytes(file, end - begin, f"{path}: tensor {name!r}")
                yield json.dumps([name, tensor["dtype"], tensor["shape"], digest])
    except OSError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def _read_header(file: BinaryIO, path: pathlib.Path) -> tuple[dict[str, Any], int]:
    """Return the entries of the tensors, and where their bytes start."""
    prefix = file.read(8)
    size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 0 < size <= _HEADER_BYTES:
        raise ValueError(f"{path} is not a readable safetensors file: it has no header")
    header = parse_json(file.read(size), TableOf(ANY), f"{path}: its header")
    header.pop(_METADATA, None)
    check_json(header, TableOf(_TENSOR), f"{path}: its header")
    for name, tensor in header.items():
        offsets = tensor["data_offsets"]
        if len(offsets) != 2 or offsets[0] > offsets[1]:
            raise ValueError(f"{path}: tensor {name!r} lies from {offsets}")
    return header, 8 + size


def _hash_bytes(file: BinaryIO, size: int, what: str) -> str:
    digest = hashlib.sha256()
    while size:
        chunk = file.read(min(size, _CHUNK))
        if not chunk:
            raise ValueError(f"{what}: the file ends before it does")
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()
