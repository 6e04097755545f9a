"""A video with its caption as a table names it, checked before any file is opened.

Tables come from the network: a path in them is data, not a promise. What climbs up, or leads out
of the data folder and of further folders that the user has named, is refused by name; captions are
capped and stripped of control characters.
"""

import dataclasses
import os
import pathlib
import re
import stat
from collections.abc import Sequence

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.clips.split_names import SPLIT_NAMES, find_split, split_key
from tpdiff_jax.files.text_files import clean_text

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClipSource:
    """One video.

    Args:
        path: relative to the data folder, with forward slashes, or absolute where it lies in
            another folder that is allowed; also the clip's name.
        caption: text, possibly empty.
        split: "train" or "test" as the table says, or "" where it does not.
        motion: motion score, or None.
        aesthetic: aesthetic score, or None.
        other_captions: further captions of the same video.
    """

    path: str
    caption: str = ""
    split: str = ""
    motion: float | None = None
    aesthetic: float | None = None
    other_captions: tuple[str, ...] = ()

    @property
    def captions(self) -> tuple[str, ...]:
        """All captions, or none."""
        return (self.caption, *self.other_captions) if self.caption else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkippedClip:
    """A row or video that was left out; `reason` is a key of `bad_clips.REASONS`."""

    path: str
    reason: str
    detail: str = ""


def check_contained(
    root: pathlib.Path, path: str, also: Sequence[pathlib.Path] = ()
) -> pathlib.Path:
    """Return the file that a table's path names, once it is known to lie where it may.

    Args:
        root: the data folder, resolved.
        path: as the table has it.
        also: further folders that files may lie in, resolved.

    Returns:
        The file itself, behind all links.

    Raises:
        BadClipError: empty_path, nul_byte, backslash, address, absolute_path, parent_folder,
            outside_root, missing_file or not_a_file.
    """
    if not path:
        raise BadClipError("empty_path")
    if "\0" in path:
        raise BadClipError("nul_byte")
    if "\\" in path:
        raise BadClipError("backslash")
    if _ADDRESS.match(path):
        raise BadClipError("address")
    if pathlib.PureWindowsPath(path).is_absolute():  # "Q: why.mp4" is a name like others
        raise BadClipError("absolute_path", "a path of Windows")
    if ".." in pathlib.PurePosixPath(path).parts:
        raise BadClipError("parent_folder")
    try:
        real = (root / path).resolve()  # an absolute path stays what it is
        if not any(real.is_relative_to(folder) for folder in (root, *also)):
            reason = "absolute_path" if path.startswith("/") else "outside_root"
            hint = f"leads to {real}; prepare.also_allowed may name {real.parent}"
            raise BadClipError(reason, _one_line(hint))
        mode = os.stat(real).st_mode
    except (OSError, RuntimeError, ValueError) as error:  # missing, too long, a circle of links
        raise BadClipError("missing_file", _one_line(f"{type(error).__name__}: {error}")) from error
    if not stat.S_ISREG(mode):
        raise BadClipError("not_a_file")
    return real


def clip_name(root: pathlib.Path, path: str) -> str:
    """Return what a clip is called: its path from the data folder where it lies in there.

    Args:
        root: the data folder, resolved.
        path: as the table has it, known to be contained.

    Returns:
        With forward slashes; absolute for a file of another folder.
    """
    if not path.startswith("/"):
        return pathlib.PurePosixPath(path).as_posix()
    file = pathlib.Path(path)
    for candidate in (file, file.parent.resolve() / file.name, file.resolve()):
        if candidate.is_relative_to(root):
            return candidate.relative_to(root).as_posix()
    return file.as_posix()


def clean_caption(text: str, max_bytes: int) -> str:
    """Return a caption as `files.text_files.clean_text` does.

    Raises:
        BadClipError: caption_too_long, judged before anything is done with the text.
    """
    num_bytes = len(text.encode("utf-8", "replace"))
    if num_bytes > max_bytes:
        raise BadClipError("caption_too_long", f"{num_bytes} bytes")
    return clean_text(text)


def to_score(value: object) -> float | None:
    """Return a finite score, or None where the table has none that can be read."""
    try:
        score = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return score if abs(score) < float("inf") else None  # NaN compares false


def to_split(value: object) -> str:
    """Return "train", "test" (validation splits too) or "" where the table says nothing.

    Raises:
        BadClipError: unknown_split; nobody can say whether such a clip may be trained on.
    """
    is_missing = value is None or value != value  # as NaN does
    name = "" if is_missing else str(value)
    split = find_split(name)
    if not split and split_key(name):
        allowed = ", ".join(SPLIT_NAMES)
        raise BadClipError("unknown_split", f"{name[:60]!r}; known: {allowed}, or nothing")
    return split


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
