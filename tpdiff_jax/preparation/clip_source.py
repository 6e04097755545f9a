"""A video with its caption as a table names it, checked before any file is opened.

Tables come from the network: a path in them is data, not a promise. What is absolute, climbs up,
or leaves the data folder through a symbolic link is refused by name; captions are capped and
stripped of control characters.
"""

import dataclasses
import os
import pathlib
import stat
import unicodedata

from tpdiff_jax.clips.bad_clips import BadClipError

SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "val": "test",
    "validate": "test",
    "validation": "test",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClipSource:
    """One video.

    Args:
        path: relative to the data folder, with forward slashes; also the clip's name.
        caption: text, possibly empty.
        split: "train" or "test" as the table says, or "" where it does not.
        motion: motion score, or None.
        aesthetic: aesthetic score, or None.
    """

    path: str
    caption: str = ""
    split: str = ""
    motion: float | None = None
    aesthetic: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkippedClip:
    """A row or video that was left out; `reason` is a key of `bad_clips.REASONS`."""

    path: str
    reason: str
    detail: str = ""


def check_contained(root: pathlib.Path, path: str) -> pathlib.Path:
    """Return the file that a table's path names, once it is known to lie inside `root`.

    Args:
        root: the data folder, resolved.
        path: as the table has it.

    Raises:
        BadClipError: empty_path, nul_byte, backslash, absolute_path, parent_folder, outside_root,
            missing_file or not_a_file.
    """
    if not path:
        raise BadClipError("empty_path")
    if "\0" in path:
        raise BadClipError("nul_byte")
    if "\\" in path:
        raise BadClipError("backslash")
    parts = pathlib.PurePosixPath(path).parts
    if path.startswith("/") or pathlib.PureWindowsPath(path).drive:
        raise BadClipError("absolute_path")
    if ".." in parts:
        raise BadClipError("parent_folder")
    try:
        real = (root / path).resolve()
        if not real.is_relative_to(root):
            raise BadClipError("outside_root")
        mode = os.stat(real).st_mode
    except (OSError, RuntimeError, ValueError) as error:  # missing, too long, a circle of links
        raise BadClipError("missing_file", _one_line(error)) from error
    if not stat.S_ISREG(mode):
        raise BadClipError("not_a_file")
    return real


def clean_caption(text: str, max_bytes: int) -> str:
    """Return a caption on one line without control or invisible formatting characters.

    Raises:
        BadClipError: caption_too_long, judged before anything is done with the text.
    """
    num_bytes = len(text.encode("utf-8", "replace"))
    if num_bytes > max_bytes:
        raise BadClipError("caption_too_long", f"{num_bytes} bytes")
    # Cc control, Cf invisible formatting (direction overrides), Cs lone surrogates.
    kept = (" " if c.isspace() else c for c in text)
    kept = (c for c in kept if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return " ".join("".join(kept).split())


def to_score(value: object) -> float | None:
    """Return a finite score, or None where the table has none that can be read."""
    try:
        score = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return score if abs(score) < float("inf") else None  # NaN compares false


def to_split(value: object) -> str:
    """Return "train", "test" (validation splits too) or "" where the table says neither."""
    return SPLIT_NAMES.get(str(value).strip().lower(), "")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
