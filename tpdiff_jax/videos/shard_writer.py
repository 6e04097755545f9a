"""Writing one shard: an ArrayRecord file, and beside it a note of what it holds.

The note (`NAME.json`) is written last. A shard with a note is done and is never made again; one
without, whatever a killed run has left of it, is made from the start. Both appear in one step.
"""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from tpdiff_jax.durable_files import publish, sha256_of_file, write_durably
from tpdiff_jax.videos.bad_clips import BadClipError
from tpdiff_jax.videos.clip_records import ClipRecord, array_facts, record_to_bytes
from tpdiff_jax.videos.clip_source import ClipSource, SkippedClip
from tpdiff_jax.videos.decode_pool import Outcome
from tpdiff_jax.videos.record_manifest import to_json
from tpdiff_jax.videos.shard_plan import ShardJob

WRITER_OPTIONS = "group_size:1,zstd:3"
"""One clip a group: reading a clip at random decompresses no other."""

Encode = Callable[[np.ndarray, str], Mapping[str, np.ndarray]]


class Encoder(NamedTuple):
    """What to store of a clip.

    Attributes:
        facts: what it is, down to the hash of its weights, as JSON holds it: part of the data
            set's identity.
        encode: (frames uint8 [f, h, w, 3], caption) -> arrays. "video" must be among them: uint8
            pixels, or float16 or float32 latents. Others, such as text embeddings [l, d] and their
            mask [l], reach the network as entries of the condition under the same names. Called in
            the main process, in the order of the clips; must be deterministic.
        encode_null: the same arrays but "video" for the empty prompt; none where nothing is made
            of captions.
    """

    facts: Mapping[str, Any]
    encode: Encode
    encode_null: Callable[[], Mapping[str, np.ndarray]] = dict


def keep_pixels(frames: np.ndarray, caption: str) -> Mapping[str, np.ndarray]:
    """Store the frames as they are, and no text embedding."""
    del caption
    return {"video": frames}


PIXELS = Encoder({"video": {"name": "pixels"}, "text": {"name": "none"}}, keep_pixels)


def write_shard(
    folder: pathlib.Path,
    job: ShardJob,
    outcomes: Iterable[tuple[ClipSource, Outcome]],
    encode: Encode,
) -> dict[str, Any]:
    """Write a shard and its note.

    Args:
        folder: where to.
        job: what it is called and holds.
        outcomes: the clips of its videos, in order.
        encode: what to store of a clip.

    Returns:
        The note: a shard's manifest entry with `arrays` (dtype and shape of each) and `skipped`.

    Raises:
        ValueError: when `encode` returns arrays of varying types or shapes, or no "video".
    """
    path = folder / job.name
    temporary = path.with_name(f".{path.name}.tmp")
    writer = ArrayRecordWriter(str(temporary), WRITER_OPTIONS)
    skipped: list[SkippedClip] = []
    facts: dict[str, Any] = {}
    num_clips = 0
    try:
        for clip, outcome in outcomes:
            if isinstance(outcome, BadClipError):
                skipped.append(
                    SkippedClip(path=clip.path, reason=outcome.reason, detail=outcome.detail)
                )
                continue
            for j, frames in enumerate(outcome):
                name = clip.path if len(outcome) == 1 else f"{clip.path}#{j}"
                record = ClipRecord(name, clip.caption, encode(frames, clip.caption))
                facts = same_arrays(facts, record)
                writer.write(record_to_bytes(record))
                num_clips += 1
    finally:
        writer.close()
    publish(temporary, path)
    note = {
        "name": job.name,
        "split": job.split,
        "num_clips": num_clips,
        "num_bytes": path.stat().st_size,
        "sha256": sha256_of_file(path),
        "arrays": facts,
        "skipped": [vars(clip) for clip in skipped],
    }
    write_durably(note_path(folder, job.name), to_json(note))
    return note


def same_arrays(facts: dict[str, Any], record: ClipRecord) -> dict[str, Any]:
    """Return a record's array facts, once they are known to equal those before it (or none)."""
    found = array_facts(record.arrays)
    if "video" not in found or facts not in ({}, found):
        raise ValueError(
            f"the encoder stored {found} for {record.name!r}; every clip needs a 'video' and the "
            f"arrays of the first, {facts}"
        )
    return found


def note_path(folder: pathlib.Path, shard_name: str) -> pathlib.Path:
    """Return where a shard's note is."""
    return folder / f"{shard_name}.json"


def read_note(folder: pathlib.Path, shard_name: str) -> dict[str, Any] | None:
    """Return the note of a finished shard, or None when the shard is still to be made."""
    note, shard = note_path(folder, shard_name), folder / shard_name
    if not note.is_file() or not shard.is_file():
        return None
    content = json.loads(note.read_text())
    return content if shard.stat().st_size == content["num_bytes"] else None
