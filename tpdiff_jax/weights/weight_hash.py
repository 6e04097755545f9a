"""The identity of a folder of weights: one hash of the names and bytes of its files."""

import pathlib
from collections.abc import Iterable

from tpdiff_jax.files.durable import sha256_of_file
from tpdiff_jax.files.json_files import sha256_of_lines

SUFFIXES = (".safetensors", ".json", ".txt", ".model")
"""Weights, configs and vocabularies; what else a published folder holds is not read."""


def hash_folders(root: pathlib.Path, names: Iterable[str] = (".",)) -> str:
    """Return the SHA-256 of what folders below `root` hold, by file names and contents.

    Raises:
        ValueError: when a folder is not there.
    """
    lines = []
    for name in names:
        folder = root / name
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder of weights")
        files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
        lines += [f"{name}/{path.name} {sha256_of_file(path)}" for path in files]
    return sha256_of_lines(lines)
