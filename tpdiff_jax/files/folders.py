"""What someone may have put in a folder: not hidden, and not the file system's own."""

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
