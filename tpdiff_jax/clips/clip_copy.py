"""Clips in a bucket: fetched once to this machine, because records are read at random.

The copy is named by its fingerprint, so a folder of another content is another copy, and it gets
its name when every file has the hash that the manifest gives it. Until then it lies in a hidden
folder, which is locked from before its first to after its last moment: one without a holder was
left by a kill, and the next start removes it.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from absl import logging

from tpdiff_jax.checks import is_bucket_address
from tpdiff_jax.clips.record_manifest import CLIP_MANIFEST_FILE, read_clip_manifest
from tpdiff_jax.files import file_lock
from tpdiff_jax.files.durable import sha256_of_file
from tpdiff_jax.files.object_store import ObjectStore


class _Named(NamedTuple):
    """What a manifest names: files with hash and size, where it says one; hashes of manifests."""

    files: dict[str, tuple[str, int | None]]
    buckets: dict[str, str]


def local_clips(folder: str) -> str:
    """Return a folder of clips on this machine: the same one, or a copy of the address that it is.

    Args:
        folder: a path, or an address such as gs://bucket/clips.

    Returns:
        A path; copies lie in the folder for temporary files (TMPDIR) and are kept. One of which
        something was taken, as cleaners of /tmp do, is made anew.

    Raises:
        ValueError: when nothing is prepared there, or a file is not the one of the manifest.
    """
    if not is_bucket_address(folder):
        return folder
    store = ObjectStore(folder)
    if (manifest := store.read(CLIP_MANIFEST_FILE)) is None:
        raise ValueError(f"{folder} has no {CLIP_MANIFEST_FILE}; --mode=prepare writes it")
    own, fingerprint = _own_folder(), hashlib.sha256(manifest).hexdigest()
    _remove_abandoned(own)
    copy = own / fingerprint
    if not _is_whole(copy, fingerprint):
        with _temporary_folder(own) as temporary:
            _set_aside(copy, temporary / "old")
            fetched = temporary / "clips"
            _fetch(store, "", fetched, fingerprint)
            read_clip_manifest(fetched)
            try:
                os.rename(fetched, copy)
            except OSError:  # another process was quicker
                if not copy.is_dir():
                    raise
        logging.info("%s is copied to %s", folder, copy)
    return str(copy)


def _is_whole(copy: pathlib.Path, sha256: str) -> bool:
    """Whether the manifest is still there, and in full size every file that it names."""
    manifest = copy / CLIP_MANIFEST_FILE
    try:
        if sha256_of_file(manifest) != sha256:
            return False
        files, buckets = _read_names(manifest, str(manifest))
        sizes = {name: (copy / name).stat().st_size for name in files}
    except OSError:
        return False
    is_here = all(size in (None, sizes[name]) for name, (_, size) in files.items())
    return is_here and all(_is_whole(copy / name, of_bucket) for name, of_bucket in buckets.items())


def _set_aside(copy: pathlib.Path, place: pathlib.Path) -> None:
    """Remove a copy that is not whole, if there is one: renamed first, so that its name is free."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(copy, place)
        logging.warning("%s has lost files: it is fetched again", copy)
        shutil.rmtree(place, ignore_errors=True)


def _fetch(store: ObjectStore, prefix: str, folder: pathlib.Path, sha256: str) -> None:
    """Fetch a manifest and what it names; a folder of buckets names other manifests."""
    manifest = folder / CLIP_MANIFEST_FILE
    _fetch_one(store, prefix, manifest, sha256)
    files, buckets = _read_names(manifest, f"{store.address}/{prefix}{manifest.name}")
    for name, (expected, _) in files.items():
        _fetch_one(store, prefix, folder / name, expected)
    for name, expected in buckets.items():
        _fetch(store, f"{prefix}{name}/", folder / name, expected)


def _read_names(manifest: pathlib.Path, where: str) -> _Named:
    try:
        fields = json.loads(manifest.read_text())
        entries = [*fields.get("shards", ()), *filter(None, [fields.get("null_condition")])]
        files = {entry["name"]: (entry["sha256"], entry.get("num_bytes")) for entry in entries}
        buckets = {entry["name"]: entry["manifest_sha256"] for entry in fields.get("buckets", ())}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} is no manifest") from error
    for name in (*files, *buckets):
        if pathlib.PurePath(str(name)).name != name or name.startswith("."):
            raise ValueError(f"{where} names {name!r}")
    return _Named(files, buckets)


def _fetch_one(store: ObjectStore, prefix: str, path: pathlib.Path, sha256: str) -> None:
    try:
        store.fetch_to(f"{prefix}{path.name}", path)
    except FileNotFoundError as error:
        raise ValueError(f"{store.address} has no {prefix}{path.name}") from error
    if sha256_of_file(path) != sha256:
        raise ValueError(f"{store.address}/{prefix}{path.name} is not what the manifest names")


def _own_folder() -> pathlib.Path:
    """Return this user's folder for copies."""
    folder = pathlib.Path(tempfile.gettempdir()) / f"tpdiff_jax_clips-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ValueError(f"{folder} is not this user's")
    return folder


@contextlib.contextmanager
def _temporary_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make a hidden folder, locked before it is there, and remove it at the end."""
    folder = parent / f".{uuid.uuid4().hex}"
    lock = _lock_of(folder)
    with file_lock.hold(lock, f"{folder} is in use"):
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _remove_abandoned(parent: pathlib.Path) -> None:
    """Remove the temporary folders of processes that were killed: nobody holds their locks."""
    for folder in (path for path in parent.glob(".*") if path.is_dir()):
        file_lock.remove_abandoned(folder, _lock_of(folder))


def _lock_of(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f"{folder.name}.lock")
