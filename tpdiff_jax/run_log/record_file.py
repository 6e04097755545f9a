"""A file of records that a full disk can shorten but not spoil."""

import os
from pathlib import Path


class RecordFile:
    """A file that holds whole records only: what a failed append left is cut off by the next."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = open(path, "ab", buffering=0)
        self._size = self._file.seek(0, os.SEEK_END)

    def append(self, record: bytes) -> None:
        """Write one record; it is with the operating system when the call returns.

        Args:
            record: its bytes, all of which must fit.

        Raises:
            OSError: naming the file, when they did not.
        """
        try:
            if self._file.tell() != self._size:
                self._file.truncate(self._size)
                self._file.seek(self._size)
            written = self._file.write(record)  # unbuffered: one system call, nothing left to lose
        except OSError as error:
            error.filename = str(self._path)
            raise
        if written != len(record):
            raise OSError(f"only {written} of {len(record)} bytes fitted into {self._path}")
        self._size += len(record)

    def close(self) -> None:
        self._file.close()
