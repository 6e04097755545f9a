"""The empty prompt, encoded: the condition of no caption, stored once beside the clips.

Training drops captions in its favour and guidance points away from it. It has the arrays that an
encoder stores of a caption, and the manifest holds its hash.
"""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tpdiff_jax.clips.clip_records import (
    ClipRecord,
    RecordError,
    array_facts,
    record_from_bytes,
    record_to_bytes,
)
from tpdiff_jax.clips.record_manifest import ClipManifest
from tpdiff_jax.files.durable import write_durably

EMPTY_PROMPT_FILE = "null_condition.record"


def write_empty_prompt(
    folder: pathlib.Path, null: Mapping[str, np.ndarray], arrays: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Write the file of the empty prompt.

    Args:
        folder: of the clips.
        null: arrays of the empty prompt, without an axis of clips; {} where clips have no text.
        arrays: shape and type of every array of a clip, by name, as the manifest has them.

    Returns:
        The file's entry of the manifest; None for a folder without text.

    Raises:
        ValueError: unless it has the arrays of every clip but its video.
    """
    found, expected = array_facts(null), {k: v for k, v in arrays.items() if k != "video"}
    if found != expected:
        raise ValueError(f"the encoder made {found} of the empty prompt and {expected} of captions")
    if not null:
        return None
    content = record_to_bytes(ClipRecord("", "", null))
    write_durably(folder / EMPTY_PROMPT_FILE, content)
    return {"name": EMPTY_PROMPT_FILE, "sha256": hashlib.sha256(content).hexdigest()}


def read_empty_prompt(folder: pathlib.Path, manifest: ClipManifest) -> Mapping[str, np.ndarray]:
    """Return the arrays of the empty prompt, without an axis of clips; none where none are stored.

    Raises:
        ValueError: when the file is missing or not the one that the manifest names.
    """
    entry = manifest.fields.get("null_condition")
    if entry is None:
        return {}
    path = folder / EMPTY_PROMPT_FILE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ValueError(f"data.folder: {path} is not the file that the manifest names")
    try:
        return record_from_bytes(content).arrays
    except RecordError as error:
        raise ValueError(f"data.folder: {path}: {error}") from error
