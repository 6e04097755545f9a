"""Shards are the files that the manifest names: their SHA-256 is compared, once, and remembered.

Sizes alone would let two shards that were exchanged pass, or one copied over another. Hashing takes
about a second a gigabyte and core, and reads the data set once: a small one before its first clip,
a large one in the background while clips are read. What was found right is noted in
`.verified_shards.jsonl` beside the shards, with size and times of the file, and is hashed again
only after these have changed.

A wrong hash has two causes. A record that was damaged is replaced when it is met, counted and
allowed up to a share (`data.stored_clips`), so a shard with records that cannot be read is only
named. One that holds another shard, or other clips that can all be read, is an error.
"""

import concurrent.futures
import json
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

from absl import logging

from tpdiff_jax.clips.clip_records import record_from_bytes
from tpdiff_jax.clips.record_manifest import ClipManifest, Shard
from tpdiff_jax.files.durable import sha256_of_file
from tpdiff_jax.files.json_files import parse_json
from tpdiff_jax.files.json_schema import COUNT, TEXT, Schema

VERIFIED_FILE = ".verified_shards.jsonl"
AT_ONCE_BYTES = 2**30
"""Up to so much is hashed before the first clip: a second or two."""
_THREADS = 2
_NOTE: dict[str, Schema] = {
    "name": TEXT,
    "bytes": COUNT,
    "mtime_ns": COUNT,
    "ctime_ns": COUNT,
    "sha256": TEXT,
}


class ShardHashes:
    """The shards of one folder and whether they are what they were."""

    def __init__(self, folder: pathlib.Path, shards: Sequence[Shard]) -> None:
        """Look at nothing yet.

        Args:
            folder: of the shards.
            shards: as the manifest names them.
        """
        self._folder, self._shards = folder, [shard for shard in shards if shard.num_clips]
        self._lock = threading.Lock()
        self._is_started = False
        self._problem: str | None = None

    def check(self) -> None:
        """Hash what was not hashed before; the first call starts that, or does it all.

        Raises:
            ValueError: when a shard is another one; from whichever call comes after that was found.
        """
        if not self._is_started:
            with self._lock:
                if not self._is_started:
                    self._start()
                    self._is_started = True
        if self._problem is not None:
            raise ValueError(self._problem)

    def _start(self) -> None:
        known = read_notes_of_shards(self._folder)
        todo = [
            s for s in self._shards if note_of_shard(self._folder / s.name, s.sha256) not in known
        ]
        size = sum(shard.num_bytes for shard in todo)
        if size <= AT_ONCE_BYTES:
            self._verify(todo)
            return
        logging.info(
            "%d shards of %s, %.1f GB, are hashed in the background and remembered",
            *(len(todo), self._folder, size / 1e9),
        )
        threading.Thread(target=self._verify, args=(todo,), daemon=True, name="shards").start()

    def _verify(self, todo: Sequence[Shard]) -> None:
        with concurrent.futures.ThreadPoolExecutor(_THREADS, "shard") as pool:
            for problem in pool.map(self._verify_one, todo):
                self._problem = self._problem or problem
                if self._problem is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
                    return

    def _verify_one(self, shard: Shard) -> str | None:
        path = self._folder / shard.name
        try:
            note = note_of_shard(path, sha256_of_file(path))
        except OSError as error:
            logging.warning("%s cannot be hashed: %s", path, error)
            return None
        if note["sha256"] == shard.sha256:
            _remember(self._folder, note)
            return None
        twins = [s.name for s in self._shards if s.sha256 == note["sha256"]]
        num_clips = None if twins else count_readable(path)
        if not twins and num_clips is None:
            logging.warning("%s is damaged: what cannot be read of it is skipped", path)
            return None
        what = f"it holds {twins[0]}" if twins else f"it holds {num_clips} other clips"
        return (
            f"data.folder: {path} is not the shard that the manifest names: {what} (SHA-256 "
            f"{note['sha256'][:12]}... instead of {shard.sha256[:12]}...). Put the right file "
            "back; what was trained since this start may have seen the wrong clips"
        )


_FOLDERS: dict[tuple[str, str], ShardHashes] = {}
_FOLDERS_LOCK = threading.Lock()


def check_shard_hashes(folder: str, manifest: ClipManifest) -> None:
    """Compare the shards of a folder with its manifest, once a process; see the module.

    Args:
        folder: of the clips.
        manifest: names its shards.

    Raises:
        ValueError: when a shard is another one.
    """
    key = (folder, manifest.fingerprint)
    if key not in _FOLDERS:
        with _FOLDERS_LOCK:
            _FOLDERS.setdefault(key, ShardHashes(pathlib.Path(folder), manifest.shards))
    _FOLDERS[key].check()


def note_of_shard(path: pathlib.Path, sha256: str) -> dict[str, Any]:
    """Return what is remembered of a file of this hash; its times change when it is renamed.

    Raises:
        OSError: when it is not there.
    """
    status = path.stat()
    return {
        "name": path.name,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "sha256": sha256,
    }


def read_notes_of_shards(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the notes of a folder; lines that are none, as after a crash, are left out."""
    path, notes = folder / VERIFIED_FILE, []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            notes.append(parse_json(line, _NOTE))
        except ValueError:
            continue
    return notes


def count_readable(path: pathlib.Path) -> int | None:
    """Return the records of an ArrayRecord file; None when any of them cannot be read."""
    # Here: what opens no shard does without the library.
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(path))
        try:
            number = reader.num_records()
            for i in range(number):
                record_from_bytes(reader.read([i])[0])
            return number
        finally:
            reader.close()
    except (RuntimeError, ValueError, IndexError):
        return None


def _remember(folder: pathlib.Path, note: dict[str, Any]) -> None:
    """Append a note in one call; a folder that cannot be written is hashed at every start."""
    try:
        descriptor = os.open(folder / VERIFIED_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, json.dumps(note).encode() + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        logging.debug("not remembered: %s", error)
