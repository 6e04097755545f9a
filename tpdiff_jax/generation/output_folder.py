"""A folder of videos, or of an export, holds what one command wrote: never old and new together.

A command that was killed leaves a mark, so that the same command may be given again: what it had
written is then taken away. What was finished is not touched.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator

import jax

from tpdiff_jax.devices.processes import is_true_at_main
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.folders import first_names, make_out_folder, visible_names

UNFINISHED_FILE = ".unfinished_samples"
UNFINISHED_EXPORT_FILE = ".unfinished_export"
NUMBERED = re.compile(r"\d{4,}(_[a-z0-9_-]*)?\.(mp4|npy)|grid\.gif")
"""Names that videos get by number."""

_WRITTEN = re.compile(r".*\.(mp4|npy)|grid\.gif", re.DOTALL)
_EXPORTED = re.compile(
    r"([^/]+/)?([^/]+\.safetensors(\.index\.json)?|config\.json)|adapter_config\.json"
    r"|tpdiff_run\.json|README\.md|LICENSE|(samples|clips)/.+",
    re.DOTALL,
)


@contextlib.contextmanager
def only_these_videos(folder: pathlib.Path) -> Iterator[None]:
    """Keep a folder for the videos that are written inside; process 0 does, for all.

    Args:
        folder: is made.

    Raises:
        ValueError: in every process, when it holds anything already.
    """
    refusal, mark = None, folder / UNFINISHED_FILE
    if jax.process_index() == 0:
        try:
            _open(folder)
        except ValueError as error:
            refusal = error
    if is_true_at_main(refusal is not None):
        raise refusal or ValueError(f"process 0 cannot write videos to --out={folder}")
    yield
    if jax.process_index() == 0:
        mark.unlink(missing_ok=True)


def remove_videos(folder: pathlib.Path, names: re.Pattern[str]) -> None:
    """Remove the files of a folder whose whole name fits; what lies in folders inside stays."""
    for name in visible_names(folder):
        if names.fullmatch(name) and (folder / name).is_file():
            (folder / name).unlink()


@contextlib.contextmanager
def only_this_export(folder: pathlib.Path) -> Iterator[None]:
    """Keep a folder for the export that is written inside; one that fails leaves no file.

    Args:
        folder: is made.

    Raises:
        ValueError: when it is none, or holds anything already; nothing is written then.
    """
    mark = folder / UNFINISHED_EXPORT_FILE
    if mark.exists():
        _remove_exported(folder)
    if any(_weights_in(folder)):
        raise ValueError(f"--out={folder} already holds safetensors; choose another folder")
    if names := [name for name in visible_names(folder) if not _is_hollow(folder / name)]:
        raise ValueError(
            f"--out={folder} is not empty ({first_names(names)}): an export would mix with it; "
            "name another folder with --out, or empty this one"
        )
    make_out_folder(folder)
    write_durably(mark, "the export here is not complete\n")
    try:
        yield
    except BaseException:  # half of it helps nobody and would refuse the next attempt
        _remove_exported(folder)
        raise
    finally:
        mark.unlink(missing_ok=True)


def _weights_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The weights of a folder and of its parts."""
    return [*folder.glob("*.safetensors*"), *folder.glob("*/*.safetensors*")]


def _is_hollow(path: pathlib.Path) -> bool:
    """Whether this is a folder without any file, as an export that failed leaves them."""
    return all(p.is_dir() and not p.is_symlink() for p in (path, *path.rglob("*")))


def _remove_exported(folder: pathlib.Path) -> None:
    """Remove the files that an export writes; the folder held none before it."""
    for path in list(folder.rglob("*")):
        is_file = path.is_file() or path.is_symlink()
        if is_file and _EXPORTED.fullmatch(path.relative_to(folder).as_posix()):
            path.unlink(missing_ok=True)


def _open(folder: pathlib.Path) -> None:
    make_out_folder(folder)
    if (folder / UNFINISHED_FILE).exists():
        remove_videos(folder, _WRITTEN)
    if names := visible_names(folder):
        raise ValueError(
            f"--out={folder} is not empty ({first_names(names)}): old and new videos would mix; "
            "name another folder with --out, or empty this one"
        )
    write_durably(folder / UNFINISHED_FILE, "the videos here are not complete\n")
