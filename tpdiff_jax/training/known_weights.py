"""The weights that a run uses, known by their hash: `weights.json`, field -> SHA-256.

So a folder of weights may move between two sessions of a run, and another one in its place is seen.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from tpdiff_jax.files.durable import sha256_of_file
from tpdiff_jax.files.json_files import read_json, write_json
from tpdiff_jax.run_folder.run_config import flat_fields
from tpdiff_jax.weights.weight_hash import hash_folders

KNOWN_WEIGHTS_FILE = "weights.json"
_RECORDED = (
    *("model.weights", "adaptation.weights"),
    *("measure.fvd_weights", "measure.clip_folder"),
)
_KNOWN_OTHERWISE = ("data.folder", "sample.video_weights")  # by the clips' own manifest


def record_weights(workdir: pathlib.Path, config: Any) -> None:
    """Write down the hash of what the config names and the run has not recorded yet.

    Args:
        workdir: the run's folder.
        config: every field of every group.
    """
    known, fields = _read(workdir), dict(flat_fields(config))
    new = {name: fields[name] for name in _RECORDED if fields.get(name) and name not in known}
    found = {name: hash_weights(pathlib.Path(place)) for name, place in new.items()}
    if found := {name: value for name, value in found.items() if value is not None}:
        write_json(workdir / KNOWN_WEIGHTS_FILE, {**known, **found})


def same_places(workdir: pathlib.Path, changed: Mapping[str, str]) -> set[str]:
    """Return those of the changed places at which the same lies as before.

    Clips and autoencoders are not looked at here: their own manifest is compared by whoever opens
    them.

    Args:
        workdir: the run's folder.
        changed: field -> place now.
    """
    known = _read(workdir)
    same = {
        name
        for name, place in changed.items()
        if name in known and hash_weights(pathlib.Path(place)) == known[name]
    }
    return same | set(_KNOWN_OTHERWISE)


def hash_weights(path: pathlib.Path) -> str | None:
    """Return the hash of a file, or of a folder and those inside it; None where neither is.

    Args:
        path: of weights.
    """
    if path.is_file():
        return sha256_of_file(path)
    if not path.is_dir():
        return None
    inside = (p for p in path.rglob("*") if p.is_dir() and not p.name.startswith("."))
    return hash_folders(path, [".", *sorted(p.relative_to(path).as_posix() for p in inside)])


def _read(workdir: pathlib.Path) -> dict[str, Any]:
    path = workdir / KNOWN_WEIGHTS_FILE
    return read_json(path) if path.is_file() else {}
