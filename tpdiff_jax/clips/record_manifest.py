"""The manifest of a folder of prepared clips, and its identity.

`manifest.json` names every shard with its size, clip count and SHA-256, what the clips are, what
was left out and why, and which sources and settings they come from. The SHA-256 of the file is
the data set's fingerprint: batch t of a run is a pure function of (seed, t, fingerprint).

Clips of several shapes lie in one such folder a bucket, inside a folder whose own manifest names
them with the hashes of theirs.
"""

import hashlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tpdiff_jax.clips.bucket import parse_bucket
from tpdiff_jax.files.json_files import MAX_JSON_BYTES, parse_json, read_small_file
from tpdiff_jax.files.json_schema import COUNT, TEXT, Leaf, ListOf, Schema, TableOf, check_json

SCHEMA = 3  # 2 held clips whose colours were wrong: dark by 2 levels, combed, HDR as SDR
CLIP_MANIFEST_FILE = "manifest.json"
SPLITS = ("train", "test")

_RATE = Leaf(
    "a number above 0",
    lambda v: isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < math.inf,
)
_CLIPS: dict[str, Schema] = {
    "fps": _RATE,
    "encoder": {"video?": {"name": TEXT}, "text?": {"name": TEXT}},
    "arrays": TableOf({"dtype": TEXT, "shape": ListOf(COUNT)}),
    "null_condition?": {"sha256": TEXT},
    "counts?": {"clips?": COUNT, "captions?": COUNT},
    "settings?": {"captions_per_video?": COUNT},
}
_FOLDER: dict[str, Schema] = {
    "shards": ListOf(
        {"name": TEXT, "split": TEXT, "num_clips": COUNT, "num_bytes": COUNT, "sha256": TEXT}
    ),
}
_INDEX: dict[str, Schema] = {"buckets": ListOf({"name": TEXT, "manifest_sha256": TEXT})}


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
    try:
        content = read_small_file(path, MAX_JSON_BYTES)
        fields = parse_json(content, {"schema": COUNT}, str(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no manifest: {error}") from error
    if fields["schema"] != SCHEMA:
        raise ValueError(
            f"{path} has schema {fields['schema']}; this version reads {SCHEMA}: prepare the clips "
            "anew"
        )
    is_index = bool(fields.get("buckets"))
    try:
        check_json(fields, _INDEX if is_index else _FOLDER, str(path))
    except ValueError as error:
        raise ValueError(f"{path} is no manifest: {error}") from error
    listed = () if is_index else fields["shards"]
    shards = tuple(Shard(**{k: shard[k] for k in Shard._fields}) for shard in listed)
    entries = {e["name"]: e["manifest_sha256"] for e in fields["buckets"]} if is_index else {}
    _check_shards(path, shards)
    buckets = {name: _read_bucket(path, name, sha256) for name, sha256 in entries.items()}
    return ClipManifest(fields, shards, hashlib.sha256(content).hexdigest(), buckets)


def check_says_what_clips_are(folder: pathlib.Path, manifest: ClipManifest) -> None:
    """Check what reading clips needs of a manifest beside its shards.

    Args:
        folder: of the clips.
        manifest: of one shape of clips.

    Raises:
        ValueError: naming what is missing or is something else.
    """
    path = folder / CLIP_MANIFEST_FILE
    check_json(manifest.fields, _CLIPS, str(path))
    if len(manifest.fields["arrays"].get("video", {}).get("shape", ())) != len("fhwc"):
        raise ValueError(f"{path}: its arrays have no video [f, h, w, c]")


def _check_shards(path: pathlib.Path, shards: Sequence[Shard]) -> None:
    names = [shard.name for shard in shards]
    if len(set(names)) < len(names):
        raise ValueError(f"{path} names a shard twice")
    for shard in shards:
        file = path.parent / shard.name
        if pathlib.PurePath(shard.name).name != shard.name or shard.split not in SPLITS:
            raise ValueError(f"{path} names a shard {shard.name!r} of split {shard.split!r}")
        if shard.num_clips > shard.num_bytes:  # which no file can hold, nor memory an order of them
            raise ValueError(
                f"{path}: {shard.name} is said to hold {shard.num_clips} clips in "
                f"{shard.num_bytes} bytes"
            )
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
