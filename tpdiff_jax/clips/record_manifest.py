"""The manifest of a folder of prepared clips, and its identity.

`manifest.json` names every shard with its size, clip count and SHA-256, what the clips are, what
was left out and why, and which sources and settings they come from. The SHA-256 of the file is
the data set's fingerprint: batch t of a run is a pure function of (seed, t, fingerprint).

Clips of several shapes lie in one such folder a bucket, inside a folder whose own manifest names
them with the hashes of theirs.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tpdiff_jax.clips.bucket import parse_bucket

SCHEMA = 3  # 2 held clips whose colours were wrong: dark by 2 levels, combed, HDR as SDR
CLIP_MANIFEST_FILE = "manifest.json"
SPLITS = ("train", "test")


class Shard(NamedTuple):
    """One ArrayRecord file of a split."""

    name: str
    split: str
    num_clips: int
    num_bytes: int
    sha256: str


class ClipManifest(NamedTuple):
    """What a folder of prepared clips holds.

    Attributes:
        fields: the whole JSON object.
        shards: of this folder; a folder of buckets has none.
        fingerprint: SHA-256 of the file.
        buckets: manifest of each bucket by its name, which is its folder's.
    """

    fields: Mapping[str, Any]
    shards: tuple[Shard, ...]
    fingerprint: str
    buckets: Mapping[str, "ClipManifest"]

    def num_clips(self, split: str) -> int:
        """Number of clips of a split, in all buckets."""
        here = sum(shard.num_clips for shard in self.shards if shard.split == split)
        return here + sum(bucket.num_clips(split) for bucket in self.buckets.values())


def to_json(fields: Mapping[str, Any]) -> bytes:
    """Return the one JSON text of these fields: sorted, indented, UTF-8."""
    return (json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def read_clip_manifest(folder: pathlib.Path) -> ClipManifest:
    """Read the manifest and check that every shard is there in full size.

    Raises:
        ValueError: when the folder is not prepared, of another schema, or a shard or bucket is
            missing or another one. Naming `data.folder`.
    """
    path = folder / CLIP_MANIFEST_FILE
    if not path.is_file():
        raise ValueError(
            f"data.folder={str(folder)!r} has no {CLIP_MANIFEST_FILE}; --mode=prepare writes it "
            "when all shards are done"
        )
    content = path.read_bytes()
    try:
        fields = json.loads(content)
        if fields["schema"] != SCHEMA:
            raise ValueError(
                f"{path} has schema {fields['schema']}; this version reads {SCHEMA}: prepare the "
                "clips anew"
            )
        entries = {entry["name"]: entry["manifest_sha256"] for entry in fields.get("buckets", ())}
        listed = () if entries else fields["shards"]
        shards = tuple(Shard(**{k: shard[k] for k in Shard._fields}) for shard in listed)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no manifest: {type(error).__name__}: {error}") from error
    _check_shards(path, shards)
    buckets = {name: _read_bucket(path, name, sha256) for name, sha256 in entries.items()}
    return ClipManifest(fields, shards, hashlib.sha256(content).hexdigest(), buckets)


def _check_shards(path: pathlib.Path, shards: Sequence[Shard]) -> None:
    for shard in shards:
        file = path.parent / shard.name
        if pathlib.PurePath(shard.name).name != shard.name or shard.split not in SPLITS:
            raise ValueError(f"{path} names a shard {shard.name!r} of split {shard.split!r}")
        size = file.stat().st_size if file.is_file() else None
        if size != shard.num_bytes:
            raise ValueError(
                f"data.folder: {file} has {'no file' if size is None else f'{size} bytes'}; the "
                f"manifest says {shard.num_bytes} bytes"
            )


def _read_bucket(path: pathlib.Path, name: str, sha256: str) -> ClipManifest:
    parse_bucket(name)  # which no path is
    bucket = read_clip_manifest(path.parent / name)
    if bucket.fingerprint != sha256:
        raise ValueError(f"data.folder: {path.parent / name} is not the bucket that {path} names")
    return bucket
