"""Files that survive a power cut: written in one step, on the disk before they have their name."""

import hashlib
import os
import pathlib


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


def write_durably(path: pathlib.Path, content: bytes) -> None:
    """Write a file in one step: after a crash or a power cut it is there in full, or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    publish(temporary, path)
