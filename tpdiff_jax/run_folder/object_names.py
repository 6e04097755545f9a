"""What the objects of a workdir in a bucket are, by their names."""

import pathlib
import re

from tpdiff_jax.run_folder.checkpoint_folder import STEP_NAME
from tpdiff_jax.run_folder.checkpoint_manifest import CHECKPOINT_MANIFEST_FILE

OWNER_OBJECT = ".owner"
LINKS = ".sending"
"""Folder of the local copy from which checkpoints are sent."""
TENSORBOARD = "tensorboard/"  # large, and nothing is read from it

_CHECKPOINT = re.compile(rf"checkpoints/({STEP_NAME})/.+")
_FIRST = ("config.json", "prepare.json")  # what a folder is, before anything in it
_UNFINISHED = ".unfinished_"  # marks of videos and exports that a killed command left in part
# What is not for the other side: locks, signs, temporary files.
_HIDDEN = re.compile(
    r"\.(owner|sending|verified_shards\.jsonl|(.*\.)?lock|host-.*|.*\.tmp)", re.DOTALL
)


def step_of(name: str) -> int | None:
    """Return the step of a checkpoint's file, None of another."""
    found = _CHECKPOINT.fullmatch(name)
    return int(found[1]) if found else None


def manifest_of(step: int) -> str:
    """Return the name of the file without which a checkpoint does not count."""
    return f"checkpoints/{step}/{CHECKPOINT_MANIFEST_FILE}"


def by_step(names: list[str]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Return names of checkpoints by step: of those with a manifest, and of the others."""
    whole: dict[int, list[str]] = {}
    for name in names:
        if (step := step_of(name)) is not None:
            whole.setdefault(step, []).append(name)
    halves = {step: whole.pop(step) for step in [*whole] if manifest_of(step) not in whole[step]}
    return dict(sorted(whole.items())), halves


def sending_order(name: str, modified: int) -> tuple[bool, int, int, int, str]:
    """Return a key that sorts what vouches for others behind them, marks of unfinished before."""
    path = pathlib.PurePosixPath(name)
    rank = int(path.suffix == ".json")  # notes, lists of facts, indices of weights
    rank = 2 if path.name == CHECKPOINT_MANIFEST_FILE else -1 if name in _FIRST else rank
    rank = -2 if path.name.startswith(_UNFINISHED) else rank
    return name.startswith("checkpoints/"), rank, modified, -len(path.parts), name


def is_hidden(name: str) -> bool:
    """Whether a name is not for the other side; one that leads out of the folder is not either."""
    return any(part in ("", ".", "..") or _HIDDEN.fullmatch(part) for part in name.split("/"))
