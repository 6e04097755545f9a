"""The files under a data folder, without what systems and tools keep there for themselves.

A file or folder whose name starts with a dot is hidden; others are known by name. Links to folders
are followed where the user has allowed what they lead to; inside the data folder they show again
what is found in its own place. A link that leads nowhere is a file: whoever reads it says so.
"""

import errno
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".gif", ".apng"),
)
SYSTEM_NAMES = {
    "__macosx",  # a Mac's ZIP archive
    "@eadir",  # network drives: thumbnails, bins, snapshots
    "@tmp",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
    "lost+found",  # Linux
    "$recycle.bin",  # Windows
    "recycler",
    "system volume information",
    "found.000",
    "__pycache__",
}
_LEADS_NOWHERE = (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR)  # ENOENT raises nothing


class FoundFiles(NamedTuple):
    """What lies under a folder.

    Attributes:
        files: paths from the folder, with forward slashes, in the order of their names.
        left_out: hidden files and system folders, which nobody looks into.
        links_out: links to folders that are not allowed.
    """

    files: list[str]
    left_out: list[str]
    links_out: list[str]

    @property
    def videos(self) -> list[str]:
        """Files that are videos by their suffix."""
        return [path for path in self.files if is_video_name(path)]


def is_video_name(path: str) -> bool:
    """Whether a file is a video by its suffix."""
    return pathlib.PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES


def is_hidden_name(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system or a tool, not to the data."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def walk_folder(root: pathlib.Path, also: Sequence[pathlib.Path] = ()) -> FoundFiles:
    """Find all files.

    Args:
        root: the data folder, resolved.
        also: further folders that links may lead to, resolved.

    Raises:
        OSError: for a folder that may not be read.
    """
    found, rest, seen = FoundFiles([], [], []), [""], {root}
    while rest:
        folder = rest.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if is_hidden_name(entry.name):
                    found.left_out.append(path)
                elif entry.is_dir(follow_symlinks=False):
                    rest.append(path)
                elif not (entry.is_symlink() and _leads_to_folder(entry)):
                    found.files.append(path)
                elif not (real := (root / path).resolve()).is_relative_to(root):
                    is_allowed = any(real.is_relative_to(other) for other in also)
                    if is_allowed and real not in seen:
                        rest.append(path)
                    elif not is_allowed:
                        found.links_out.append(path)
                    seen.add(real)
    return FoundFiles(*map(sorted, found))


def _leads_to_folder(link: "os.DirEntry[str]") -> bool:
    try:
        return link.is_dir()
    except OSError as error:  # a bad video stops nothing; a folder that may not be read does
        if error.errno not in _LEADS_NOWHERE and not is_video_name(link.name):
            raise
        return False
