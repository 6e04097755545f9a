"""The folder that a preparation writes to: of this preparation for good, or refused."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from tpdiff_jax.clips.record_manifest import to_json
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.folders import visible_names
from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.preparation.skipped_clips import SKIPPED_FILE

IDENTITY_FILE = "prepare.json"
ORIGIN_FILE = "origin.json"
"""Which command made the last shards: written once all are there, removed when more are made."""


def check_output_folder(folder: pathlib.Path, wanted: Mapping[str, Any]) -> None:
    """Check that a folder is new, empty or of the same preparation; nothing there is changed.

    Args:
        folder: the output.
        wanted: what `prepare.identity` returns.

    Raises:
        ValueError: with one line for each difference, or when the folder holds something else.
    """
    path = folder / IDENTITY_FILE
    if not path.exists():
        others = [name for name in visible_names(folder) if name != SKIPPED_FILE]
        if others:
            raise ValueError(f"--workdir={folder} is no prepared folder and not empty: {others[0]}")
        return
    before, now = dict(_flat(read_json(path))), dict(_flat(wanted))
    lines = [
        f"  {name}: was {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if lines:
        raise ValueError(f"{folder} holds another preparation:\n" + "\n".join(lines))


def open_output_folder(folder: pathlib.Path, wanted: Mapping[str, Any]) -> None:
    """Make the output folder, or check that it is of the same preparation.

    Raises:
        ValueError: as `check_output_folder`.
    """
    check_output_folder(folder, wanted)
    folder.mkdir(parents=True, exist_ok=True)
    if not (path := folder / IDENTITY_FILE).exists():
        write_durably(path, to_json(wanted))


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
