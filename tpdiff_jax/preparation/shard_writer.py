"""Writing one shard: an ArrayRecord file, and beside it a note of what it holds.

Clips of several shapes go to one such file for each, in the folders of their buckets. The note
(`NAME.json`) is written last. A shard with all its notes is done and is never made again; one
without, whatever a killed run has left of it, is made from the start. Files appear in one step.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from array_record.python.array_record_module import ArrayRecordWriter

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.clips.clip_records import ClipRecord, array_facts, record_to_bytes
from tpdiff_jax.clips.record_manifest import to_json
from tpdiff_jax.clips.several_captions import stack_captions
from tpdiff_jax.files.durable import (
    WriteError,
    naming_write_errors,
    publish,
    sha256_of_file,
    write_durably,
)
from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.files.json_schema import COUNT, TABLE, TEXT, Closed, ListOf, Schema
from tpdiff_jax.preparation.clip_encoder import ClipEncoder
from tpdiff_jax.preparation.clip_source import ClipSource, SkippedClip
from tpdiff_jax.preparation.decode_pool import Outcome
from tpdiff_jax.preparation.shard_plan import ShardJob

_NOTE: dict[str, Schema] = {
    **{"name": TEXT, "split": TEXT, "num_clips": COUNT, "num_bytes": COUNT, "sha256": TEXT},
    "arrays": TABLE,
    "skipped": ListOf(Closed({"path": TEXT, "reason": TEXT, "detail": TEXT})),
}
WRITER_OPTIONS = "group_size:1,zstd:3"
"""One clip a group: reading a clip at random decompresses no other."""


class _OpenShard:
    """One ArrayRecord file in the making."""

    def __init__(self, path: pathlib.Path, attempt: str = "") -> None:
        self._path, self._temporary = path, path.with_name(f".{path.name}{attempt}.tmp")
        with naming_write_errors(path):
            path.parent.mkdir(exist_ok=True)
            self._writer = ArrayRecordWriter(str(self._temporary), WRITER_OPTIONS)
        self._arrays: dict[str, Any] = {}
        self._num_clips = self._num_captioned = self._num_cut = 0

    def add(self, record: ClipRecord, num_cut: int) -> None:
        """Write a clip, so many of whose captions are cut; all have the same arrays."""
        self._arrays = same_arrays(self._arrays, record)
        with naming_write_errors(self._path):
            self._writer.write(record_to_bytes(record))
        self._num_clips += 1
        self._num_captioned += bool(record.caption)
        self._num_cut += num_cut

    def close(self) -> None:
        """End the temporary file, whatever is in it."""
        with naming_write_errors(self._path):
            self._writer.close()

    def discard(self) -> None:
        """Remove the temporary file."""
        self._temporary.unlink(missing_ok=True)

    def publish(self, job: ShardJob, skipped: Sequence[SkippedClip]) -> dict[str, Any]:
        """Give the file its name; return its note."""
        with naming_write_errors(self._path):
            publish(self._temporary, self._path)
        return {
            "name": job.name,
            "split": job.split,
            "num_clips": self._num_clips,
            "num_captioned": self._num_captioned,
            "num_captions_cut": self._num_cut,
            "num_bytes": self._path.stat().st_size,
            "sha256": sha256_of_file(self._path),
            "arrays": self._arrays,
            "skipped": [vars(clip) for clip in skipped],
        }


def write_shard(
    folders: Mapping[Bucket, pathlib.Path],
    job: ShardJob,
    outcomes: Iterable[tuple[ClipSource, Outcome]],
    encoder: ClipEncoder,
    captions_per_video: int = 1,
) -> list[dict[str, Any]]:
    """Write a shard and its note into the folder of each bucket.

    Args:
        folders: where clips of each shape go.
        job: what the shard is called and of which videos its clips are.
        outcomes: the clips of these videos, in order.
        encoder: what to store of a clip.
        captions_per_video: captions that a clip has room for.

    Returns:
        The note of every bucket.

    Raises:
        ValueError: when the encoder returns arrays of varying types or shapes, or no "video".
        WriteError: when the disk is full or broken.
    """
    notes = store_clips(folders, job, outcomes, encoder, captions_per_video)
    write_notes(folders, notes)
    return notes


def store_clips(
    folders: Mapping[Bucket, pathlib.Path],
    job: ShardJob,
    outcomes: Iterable[tuple[ClipSource, Outcome]],
    encoder: ClipEncoder,
    captions_per_video: int = 1,
    attempt: str = "",
) -> list[dict[str, Any]]:
    """Write a shard into the folder of each bucket; it counts once its notes are written.

    Args:
        folders: where clips of each shape go.
        job: what the shard is called and of which videos its clips are.
        outcomes: the clips of these videos, in order.
        encoder: what to store of a clip.
        captions_per_video: captions that a clip has room for.
        attempt: part of the unfinished files' names, where two may be at work at the same time.

    Returns:
        The note of every bucket: a shard's manifest entry with `arrays` (dtype and shape of each),
        clips with a caption, captions that are cut, and `skipped`, which videos of the job have no
        clip in any bucket.

    Raises:
        ValueError: when the encoder returns arrays of varying types or shapes, or no "video".
        WriteError: when the disk is full or broken.
    """
    shards = {bucket: _OpenShard(folder / job.name, attempt) for bucket, folder in folders.items()}
    try:
        skipped = _fill(shards, outcomes, encoder, captions_per_video)
        return [shard.publish(job, skipped) for shard in shards.values()]
    except WriteError:  # what is there helps nobody and takes the room that is missing
        for shard in shards.values():
            shard.discard()
        raise


def _fill(
    shards: Mapping[Bucket, _OpenShard],
    outcomes: Iterable[tuple[ClipSource, Outcome]],
    encoder: ClipEncoder,
    captions_per_video: int,
) -> list[SkippedClip]:
    """Write the clips, each into the shard of its bucket; return those that were left out."""
    skipped: list[SkippedClip] = []
    try:
        for clip, outcome in outcomes:
            if isinstance(outcome, BadClipError):
                skipped.append(
                    SkippedClip(path=clip.path, reason=outcome.reason, detail=outcome.detail)
                )
                continue
            num_cut = sum(map(encoder.is_cut, clip.captions))
            for j, frames in enumerate(outcome):
                name = clip.path if len(outcome) == 1 else f"{clip.path}#{j}"
                arrays = encode_clip(encoder, frames, clip, captions_per_video)
                record = ClipRecord(name, clip.caption, arrays, clip.other_captions)
                shards[Bucket(*frames.shape[:3])].add(record, num_cut)
    finally:
        for shard in shards.values():
            shard.close()
    return skipped


def encode_clip(
    encoder: ClipEncoder, frames: np.ndarray, clip: ClipSource, captions_per_video: int
) -> Mapping[str, np.ndarray]:
    """Return the arrays of a clip with all its captions; see `several_captions`.

    Args:
        encoder: what to store of a clip.
        frames: uint8 [f, h, w, 3].
        clip: its captions, none of which is the empty one.
        captions_per_video: captions that a clip has room for.

    Raises:
        ValueError: for captions whose arrays differ in shape.
    """
    arrays = encoder.encode(frames, clip.caption)
    if captions_per_video == 1 or "video" not in arrays:
        return arrays
    encode_text = encoder.encode_text or (lambda caption: encoder.encode(frames, caption))
    texts = [arrays, *map(encode_text, clip.other_captions)]
    alone = [{name: a for name, a in text.items() if name != "video"} for text in texts]
    return {"video": arrays["video"], **stack_captions(alone, captions_per_video)}


def write_notes(folders: Mapping[Bucket, pathlib.Path], notes: Sequence[Mapping[str, Any]]) -> None:
    """Write the note of every bucket, which makes the shard a finished one."""
    for folder, note in zip(folders.values(), notes, strict=True):
        write_durably(note_path(folder, note["name"]), to_json(note))


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


def read_notes(
    folders: Mapping[Bucket, pathlib.Path], shard_name: str
) -> list[dict[str, Any]] | None:
    """Return the note of every bucket, or None when the shard is still to be made for any."""
    notes = [_read_note(folder, shard_name) for folder in folders.values()]
    found = [note for note in notes if note is not None]
    return found if len(found) == len(notes) else None


def _read_note(folder: pathlib.Path, shard_name: str) -> dict[str, Any] | None:
    note, shard = note_path(folder, shard_name), folder / shard_name
    if not note.is_file() or not shard.is_file():
        return None
    try:
        content = read_json(note, schema=_NOTE)
    except ValueError as error:
        logging.warning("the shard is made again: %s", error)
        return None
    return content if shard.stat().st_size == content["num_bytes"] else None
