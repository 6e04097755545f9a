"""JSON files of others: read in full, of the expected kind, or refused by name."""

import json
import pathlib
from typing import Any


def read_json(path: pathlib.Path, kind: type = dict) -> Any:
    """Read a JSON object, or a list where `kind` says so.

    Raises:
        ValueError: naming the file, if it is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a readable JSON file: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a JSON {'list' if kind is list else 'object'}")
    return content
