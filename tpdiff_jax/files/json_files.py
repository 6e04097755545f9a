"""JSON files: read whole and of the expected kind, or refused by name; written in one step."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.text_files import read_text


def read_json(path: pathlib.Path, kind: type = dict) -> Any:
    """Read a JSON object, or a list where `kind` says so.

    Raises:
        ValueError: naming the file, if it is not one.
    """
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable JSON file: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a JSON {'list' if kind is list else 'object'}")
    return content


def sha256_of_lines(lines: Sequence[str]) -> str:
    """Hash a list of texts; a line's end cannot be forged, as each is written as JSON."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Write JSON durably, in one step; NaN and infinities become null."""
    text = json.dumps(_plain(content), indent=2, allow_nan=False)
    write_durably(path, (text + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
