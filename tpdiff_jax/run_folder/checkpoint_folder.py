"""The folder `checkpoints/`: which name means what, and what may be removed.

    STEP             a finished checkpoint, with its manifest
    STEP.saving      being written or hashed
    STEP.replaced    a damaged one whose place a new save has taken
    STEP.deleting    being removed

A name changes by one rename, so a kill at any instant leaves either the old or the new state, and
every name but the first is a leftover that the next start removes. A name of anything else is left
alone; a link in place of a checkpoint is a link: it may go, what it leads to never does.
"""

import os
import pathlib
import re
import shutil
from collections.abc import Collection, Sequence

from tpdiff_jax.files.durable import flush

SAVING, _REPLACED, _DELETING = ".saving", ".replaced", ".deleting"
STEP_NAME = r"0|[1-9][0-9]{0,17}"  # as steps are written, and nothing else that is a number
_STEP = re.compile(STEP_NAME)
# What orbax adds to a name while it writes.
_LEFTOVER = re.compile(r"\d+((\.(saving|replaced|deleting))|(\.orbax-checkpoint-tmp[\w.-]*))+")


def list_steps(folder: pathlib.Path) -> list[int]:
    """Return the steps that something is named by, damaged or not, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if _STEP.fullmatch(path.name))


def list_foreign(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return what is neither a checkpoint nor a leftover; nothing here reads or removes it."""
    if not folder.is_dir():
        return []
    known = {str(step) for step in list_steps(folder)}
    known |= {path.name for path in list_leftovers(folder)}
    return sorted(path for path in folder.iterdir() if path.name not in known)


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
    if final.is_symlink() or final.is_file():
        final.unlink()
    elif final.exists():
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
    path, doomed = folder / str(step), folder / f"{step}{_DELETING}"
    if path.is_symlink() or path.is_file():
        path.unlink()
        return
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def clear_leftovers(folder: pathlib.Path) -> None:
    """Remove leftovers as far as that is possible."""
    for path in list_leftovers(folder):
        shutil.rmtree(path, ignore_errors=True)


def describe_failed_save(folder: pathlib.Path, step: int, reason: str) -> str:
    """Return one line about a save that failed: why, the room that is left, and what is whole.

    Args:
        folder: of the checkpoints.
        step: that was to be saved.
        reason: what the save raised.
    """
    try:
        free = str(shutil.disk_usage(folder).free)
        whole = str(list_steps(folder) or "none")
    except OSError as error:  # the folder itself is gone or away
        free, whole = "unknown", f"unknown ({error.strerror})"
    return (
        f"the checkpoint of step {step} could not be saved to {folder} ({reason}); free bytes "
        f"there: {free}; earlier checkpoints are untouched: {whole}"
    )


def describe_none_intact(folder: pathlib.Path, problems: Sequence[str]) -> str:
    """Return what is wrong with all checkpoints of a folder, and what can be done."""
    return (
        f"no intact checkpoint in {folder}: {'; '.join(problems)}. Put a good copy back or start "
        "again in another workdir; where only the manifest is missing and you trust the files, "
        f"--mode=doctor --workdir={folder.parent} --trust_step=STEP writes it"
    )


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
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
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
