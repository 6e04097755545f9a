"""Files that survive a power cut: written in one step, on the disk before they have their name.

Everything here that a later command may read is written so, whatever writes it:

    write_durably(path, content)                 bytes or text at hand
    with writing(path) as temporary: ...         a library that wants a path

Until the last step the old file is there, whole; a write that fails leaves it and nothing else.
"""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterator

_DIGITS = 16


def sha256_of_file(path: pathlib.Path) -> str:
    """Hash a file's bytes, in chunks and without the interpreter's lock."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: pathlib.Path) -> None:
    """Bring a file's bytes, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: pathlib.Path, path: pathlib.Path) -> None:
    """Give a finished file its name once its bytes are on the disk."""
    flush(temporary)
    os.replace(temporary, path)
    flush(path.parent)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Replace a file in one step: after a crash or a power cut the old or the new one is there.

    Args:
        path: file to write; its folder is made.

    Yields:
        The path to write to, hidden and beside it; gone when what is inside fails. It ends in
        `.tmp`, so that one left by a kill is taken for no video or weights: a library that
        chooses its format by the suffix must be told.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not made of the whole name: one that just fits the file system would not fit any more.
    name = hashlib.sha256(path.name.encode()).hexdigest()[:_DIGITS]
    temporary = path.with_name(f".{name}.tmp")
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_durably(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file in one step; text as UTF-8."""
    with writing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
