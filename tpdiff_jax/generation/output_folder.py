"""A folder of videos holds those of one command: never old and new ones side by side.

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
from tpdiff_jax.files.folders import first_names, visible_names

UNFINISHED_FILE = ".unfinished_samples"
NUMBERED = re.compile(r"\d{4,}(_[a-z0-9_-]*)?\.(mp4|npy)|grid\.gif")
"""Names that videos get by number."""

_WRITTEN = re.compile(r".*\.(mp4|npy)|grid\.gif", re.DOTALL)


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


def _open(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / UNFINISHED_FILE).exists():
        remove_videos(folder, _WRITTEN)
    if names := visible_names(folder):
        raise ValueError(
            f"--out={folder} is not empty ({first_names(names)}): old and new videos would mix; "
            "name another folder with --out, or empty this one"
        )
    write_durably(folder / UNFINISHED_FILE, "the videos here are not complete\n")
