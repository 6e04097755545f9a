"""JSON files: read whole and of the expected kind, or refused by name; written in one step.

All JSON that comes from a disk passes `parse_json`: bounded in size and depth, so that no damage
ends in a traceback. What its members must be, `json_schema` says.
"""

import contextlib
import hashlib
import json
import pathlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tpdiff_jax.checks import first_line_of
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_schema import ANY, Schema, check_json
from tpdiff_jax.files.text_files import decode_text

MAX_JSON_BYTES = 2**28
"""A manifest of a million shards, and no more than a machine can hold."""
MAX_JSON_DEPTH = 64


def parse_json(text: str | bytes, schema: Schema = ANY, where: str = "the text") -> Any:
    """Parse JSON from outside.

    Args:
        text: at most `MAX_JSON_BYTES`, nested at most `MAX_JSON_DEPTH` deep.
        schema: what it must look like.
        where: what to call it in errors.

    Returns:
        The value.

    Raises:
        ValueError: in one line, for anything else.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"{where} is longer than {MAX_JSON_BYTES} bytes")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(f"{where} is nested deeper than {MAX_JSON_DEPTH}") from None
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from error
    if _is_deeper(content, MAX_JSON_DEPTH):
        raise ValueError(f"{where} is nested deeper than {MAX_JSON_DEPTH}")
    check_json(content, schema, where)
    return content


def read_json(path: pathlib.Path, kind: type = dict, *, schema: Schema = ANY) -> Any:
    """Read a JSON object, or a list where `kind` says so.

    Args:
        path: the file.
        kind: dict or list.
        schema: what it must look like.

    Raises:
        ValueError: in one line that names the file, if it is not one.
    """
    try:
        text = decode_text(read_small_file(path, MAX_JSON_BYTES))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a readable JSON file: {error}") from error
    content = parse_json(text, ANY, str(path))
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a JSON {'list' if kind is list else 'object'}")
    check_json(content, schema, str(path))
    return content


def read_small_file(path: pathlib.Path, max_bytes: int) -> bytes:
    """Read a regular file of at most so many bytes.

    Raises:
        OSError: when it is not there or cannot be read.
        ValueError: when it is longer, or a pipe or device, which might never end.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ValueError("it is no regular file")
    if status.st_size > max_bytes:
        raise ValueError(f"it is longer than {max_bytes} bytes")
    return path.read_bytes()  # of a folder: the system's own words


@contextlib.contextmanager
def refusing_odd_fields(path: pathlib.Path) -> Iterator[None]:
    """Say which file's fields do not fit, whatever they break inside.

    A config from the command line has the types of its defaults; a file may hold anything.

    Args:
        path: such as a config.json, for the message.

    Raises:
        ValueError: in one line, for what a field of a wrong type raises.
    """
    try:
        yield
    except (TypeError, KeyError, AttributeError, OverflowError, ZeroDivisionError) as error:
        reason = first_line_of(error)[:200]
        raise ValueError(f"{path} holds a field that does not fit: {reason}") from error


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


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [v for v in level if isinstance(v, dict | list)]
        level = [item for v in level for item in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return False
    return any(isinstance(v, dict | list) for v in level)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
