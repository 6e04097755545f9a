"""The folder `checkpoints/`: which name means what, and what may be removed.

    STEP             a finished checkpoint, with its manifest
    STEP.saving      being written or hashed
    STEP.replaced    a damaged one whose place a new save has taken
    STEP.deleting    being removed

A name changes by one rename, so a kill at any instant leaves either the old or the new state, and
every name but the first is a leftover that the next start removes.
"""

import os
import pathlib
import re
import shutil
from collections.abc import Collection, Sequence

from tpdiff_jax.files.durable import flush

SAVING, _REPLACED, _DELETING = ".saving", ".replaced", ".deleting"
# What orbax adds to a name while it writes.
_LEFTOVER = re.compile(r"\d+((\.(saving|replaced|deleting))|(\.orbax-checkpoint-tmp[\w.-]*))+")


def list_steps(folder: pathlib.Path) -> list[int]:
    """Return the steps that have a folder of their name, damaged or not, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def list_leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders that interrupted saves and removals have left."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if _LEFTOVER.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    )


def publish_checkpoint(folder: pathlib.Path, step: int) -> None:
    """Give a saved and verified checkpoint its final name; a damaged one of this name goes."""
    final, saving = folder / str(step), folder / f"{step}{SAVING}"
    if final.exists():
        os.rename(final, folder / f"{step}{_REPLACED}")
    os.rename(saving, final)
    flush(folder)


def steps_to_remove(
    steps: Sequence[int], *, newest: int, keep: int, rejected: Collection[int] = ()
) -> list[int]:
    """Return what retention removes once step `newest` is known to be intact.

    Counted are only steps up to `newest` that were not found damaged. So neither a damaged step
    nor one with a higher number, left behind by a walk back, can push out the newest intact one.

    Args:
        steps: all steps in the folder.
        newest: the step just saved and hashed.
        keep: how many to keep, at least 1.
        rejected: steps found damaged; those before `newest` are removed.
    """
    earlier = [step for step in sorted(steps) if step < newest]
    good = [step for step in earlier if step not in rejected]
    kept = set(good[len(good) - keep + 1 :]) if keep > 1 else set()
    return [step for step in earlier if step not in kept]


def remove_step(folder: pathlib.Path, step: int) -> None:
    """Remove a checkpoint: renamed first, so that it is never half there under its own name."""
    doomed = folder / f"{step}{_DELETING}"
    os.rename(folder / str(step), doomed)
    shutil.rmtree(doomed)


def check_free_space(folder: pathlib.Path, *, state_bytes: int, keep: int) -> None:
    """Refuse a run whose checkpoints cannot fit.

    At most `keep` finished ones and one being written lie on disk at a time; what the folder holds
    already is counted as theirs.

    Args:
        folder: of the checkpoints.
        state_bytes: bytes of one checkpoint.
        keep: finished checkpoints to keep, 1 or more.

    Raises:
        ValueError: naming the bytes needed and free.
    """
    present = size_of(folder)
    needed = max(0, (keep + 1) * state_bytes - present)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"checkpoints need {needed} more bytes in {folder} (train.keep_checkpoints={keep} and "
            f"one being written, {state_bytes} bytes each), but only {free} are free; free some "
            "space or keep fewer"
        )


def size_of(folder: pathlib.Path) -> int:
    """Return the bytes of all files below a folder; files that go away meanwhile count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total
