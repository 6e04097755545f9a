"""Files that survive a power cut: written in one step, on the disk before they have their name.

Everything here that a later command may read is written so, whatever writes it:

    write_durably(path, content)                 bytes or text at hand
    with writing(path) as temporary: ...         a library that wants a path

Until the last step the old file is there, whole; a write that fails leaves it and nothing else, and
is a `WriteError` where the disk is full or broken, whichever library noticed.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import shutil
import stat
from collections.abc import Iterator

_DIGITS = 16
FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_ERRORS = (*FULL_DISK_ERRORS, errno.EROFS, errno.EIO)
"""A disk that is full or broken; other errors of the system say that a path is wrong."""


class WriteError(OSError):
    """A file could not be written: the disk is full or broken."""

    def __str__(self) -> str:
        return str(self.args[-1])


def is_disk_error(error: BaseException) -> bool:
    """Whether an error says that a disk is full or broken, in whatever words.

    numpy raises an `OSError` without a number, safetensors and ArrayRecord errors of their own with
    the system's words in them.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in DISK_ERRORS
    text = str(error)
    is_numpys = isinstance(error, OSError) and " requested and " in text
    return is_numpys or any(os.strerror(number) in text for number in DISK_ERRORS)


@contextlib.contextmanager
def naming_write_errors(path: pathlib.Path) -> Iterator[None]:
    """Turn what a full or broken disk raises inside into one line about a file.

    Args:
        path: what is being written.

    Raises:
        WriteError: naming it, the reason and the room that is left.
    """
    try:
        yield
    except Exception as error:  # of many types: numpy's, Rust's, the system's
        if isinstance(error, WriteError) or not is_disk_error(error):
            raise
        there = next((p for p in path.parents if p.is_dir()), path.parent)
        try:
            free = str(shutil.disk_usage(there).free)
        except OSError:
            free = "unknown"
        reason = getattr(error, "strerror", None) or str(error)
        text = f"{path} could not be written ({reason}); free bytes there: {free}"
        raise WriteError(getattr(error, "errno", None) or errno.ENOSPC, text) from error


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
        chooses its format by the suffix must be told. It is there, empty, with the mode that new
        files have here; the file gets that mode, whatever a library has put in its place.

    Raises:
        WriteError: when the disk is full or broken.
    """
    path = pathlib.Path(path)
    # Not made of the whole name: one that just fits the file system would not fit any more.
    name = hashlib.sha256(path.name.encode()).hexdigest()[:_DIGITS]
    temporary = path.with_name(f".{name}.tmp")
    with naming_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.unlink(missing_ok=True)  # a kill may have left one, of any mode
            temporary.touch()
            usual = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            if stat.S_IMODE(temporary.stat().st_mode) != usual:  # safetensors' own are 0600
                with contextlib.suppress(PermissionError):  # a disk that keeps no modes
                    temporary.chmod(usual)
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_durably(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file in one step; text as UTF-8."""
    with writing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
