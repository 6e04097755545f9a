"""What someone may have put in a folder: not hidden, and not the file system's own."""

import os
import pathlib

_OF_FILE_SYSTEMS = ("lost+found", "System Volume Information")


def visible_names(folder: pathlib.Path) -> list[str]:
    """Return the names in a folder, sorted; none of a folder that is not there.

    Hidden files and what file systems make in the root of a disk are left out.
    """
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir())
    return sorted(n for n in names if not n.startswith(".") and n not in _OF_FILE_SYSTEMS)


def first_names(names: list[str]) -> str:
    """Return the first few names, for a message."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def nearest_there(path: pathlib.Path) -> pathlib.Path:
    """Return a path, or of the folders around it the innermost that is there."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def make_out_folder(folder: pathlib.Path) -> None:
    """Make the folder that --out names, and those around it.

    Raises:
        ValueError: when something in its path is no folder or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        wrong = nearest_there(folder)
        raise ValueError(f"--out={folder}: {wrong} is no folder; allowed: a folder") from error
    except PermissionError as error:
        raise ValueError(f"--out={folder} cannot be made: {error.strerror}") from error
