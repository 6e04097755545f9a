"""Clips in a bucket: fetched once to this machine, because records are read at random.

The copy is named by its fingerprint, so a folder of another content is another copy, and it gets
its name when every file has the hash that the manifest gives it.
"""

import hashlib
import json
import os
import pathlib
import tempfile

from absl import logging

from tpdiff_jax.checks import is_bucket_address
from tpdiff_jax.clips.record_manifest import CLIP_MANIFEST_FILE, read_clip_manifest
from tpdiff_jax.files.durable import sha256_of_file
from tpdiff_jax.files.object_store import ObjectStore


def local_clips(folder: str) -> str:
    """Return a folder of clips on this machine: the same one, or a copy of the address that it is.

    Args:
        folder: a path, or an address such as gs://bucket/clips.

    Returns:
        A path; copies lie in the folder for temporary files (TMPDIR) and are kept.

    Raises:
        ValueError: when nothing is prepared there, or a file is not the one of the manifest.
    """
    if not is_bucket_address(folder):
        return folder
    store = ObjectStore(folder)
    if (manifest := store.read(CLIP_MANIFEST_FILE)) is None:
        raise ValueError(f"{folder} has no {CLIP_MANIFEST_FILE}; --mode=prepare writes it")
    copy = _own_folder() / hashlib.sha256(manifest).hexdigest()
    if not copy.is_dir():
        with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".") as temporary:
            fetched = pathlib.Path(temporary) / "clips"
            _fetch(store, "", fetched, hashlib.sha256(manifest).hexdigest())
            read_clip_manifest(fetched)
            try:
                os.rename(fetched, copy)
            except OSError:  # another process was quicker
                if not copy.is_dir():
                    raise
        logging.info("%s is copied to %s", folder, copy)
    return str(copy)


def _fetch(store: ObjectStore, prefix: str, folder: pathlib.Path, sha256: str) -> None:
    """Fetch a manifest and what it names; a folder of buckets names other manifests."""
    manifest = folder / CLIP_MANIFEST_FILE
    _fetch_one(store, prefix, manifest, sha256)
    try:
        fields = json.loads(manifest.read_text())
        entries = [*fields.get("shards", ()), *filter(None, [fields.get("null_condition")])]
        hashes = {entry["name"]: entry["sha256"] for entry in entries}
        buckets = {entry["name"]: entry["manifest_sha256"] for entry in fields.get("buckets", ())}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{store.address}/{prefix}{manifest.name} is no manifest") from error
    for name in (*hashes, *buckets):
        if pathlib.PurePath(str(name)).name != name or name.startswith("."):
            raise ValueError(f"{store.address}/{prefix}{manifest.name} names {name!r}")
    for name, expected in hashes.items():
        _fetch_one(store, prefix, folder / name, expected)
    for name, expected in buckets.items():
        _fetch(store, f"{prefix}{name}/", folder / name, expected)


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
