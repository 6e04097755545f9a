"""What preparation writes last: the manifest of each folder of clips, and the index of all."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from tpdiff_jax.clips.empty_prompt import write_empty_prompt
from tpdiff_jax.clips.record_manifest import (
    CLIP_MANIFEST_FILE,
    SCHEMA,
    SPLITS,
    ClipManifest,
    Shard,
    read_clip_manifest,
    to_json,
)
from tpdiff_jax.clips.several_captions import captions_per_video, facts_of_one
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.preparation.skipped_clips import SkippedClips, count_reasons


def write_clip_manifest(
    folder: pathlib.Path,
    notes: Sequence[Mapping[str, Any]],
    made_of: Mapping[str, Any],
    skipped: SkippedClips,
    null: Mapping[str, np.ndarray],
) -> None:
    """Write the manifest of clips of one shape, and the condition of no prompt beside it.

    Args:
        folder: of the shards.
        notes: one of each shard, in order.
        made_of: what `identity` returns.
        skipped: what was left out.
        null: arrays of the empty prompt; {} where clips have no text.

    Raises:
        ValueError: when no clip is left.
    """
    arrays = [note["arrays"] for note in notes if note["num_clips"]]
    if not arrays:
        raise ValueError("no clip is left: every video was skipped")
    fields = common_fields(
        sum(note["num_clips"] for note in notes),
        {
            "captions": sum(note["num_captioned"] for note in notes),
            "captions_cut": sum(note["num_captions_cut"] for note in notes),
        },
        made_of,
        skipped,
    )
    fields |= {
        "arrays": arrays[0],
        "shards": [{field: note[field] for field in Shard._fields} for note in notes],
    }
    of_one = facts_of_one(arrays[0], captions_per_video(made_of))
    null_condition = write_empty_prompt(folder, null, of_one)
    fields |= {"null_condition": null_condition} if null_condition else {}
    write_durably(folder / CLIP_MANIFEST_FILE, to_json(fields))


def write_index(
    folder: pathlib.Path,
    buckets: Sequence[pathlib.Path],
    made_of: Mapping[str, Any],
    skipped: SkippedClips,
) -> None:
    """Write the manifest of a folder of buckets: their names, clips and hashes.

    Args:
        folder: of the buckets.
        buckets: their folders, each with its manifest.
        made_of: what `identity` returns.
        skipped: what was left out.

    Raises:
        ValueError: when no training clip is left.
    """
    if not buckets:
        raise ValueError("no training clip is left in any of prepare.buckets")
    manifests = {path.name: read_clip_manifest(path) for path in buckets}
    entries = [
        {
            "name": name,
            "clips": {split: manifest.num_clips(split) for split in SPLITS},
            "manifest_sha256": manifest.fingerprint,
        }
        for name, manifest in manifests.items()
    ]
    num_clips = [manifest.num_clips(split) for manifest in manifests.values() for split in SPLITS]
    counts = [manifest.fields["counts"] for manifest in manifests.values()]
    captions = {name: sum(c[name] for c in counts) for name in ("captions", "captions_cut")}
    fields = common_fields(sum(num_clips), captions, made_of, skipped) | {"buckets": entries}
    write_durably(folder / CLIP_MANIFEST_FILE, to_json(fields))


def common_fields(
    num_clips: int, captions: Mapping[str, int], made_of: Mapping[str, Any], skipped: SkippedClips
) -> dict[str, Any]:
    """Return what every manifest has.

    Args:
        num_clips: clips that the manifest tells of.
        captions: "captions", of these clips those that have one, and "captions_cut", captions
            that were longer than the text encoder's tokens.
        made_of: what `identity` returns.
        skipped: what the whole preparation left out.

    Returns:
        Fields by name, as JSON holds them.
    """
    return {
        "schema": SCHEMA,
        **made_of,
        "fps": made_of["settings"]["fps"],
        "counts": {
            "clips": num_clips,
            **captions,
            "rows_skipped": count_reasons(skipped.rows),
            "rows_left_out": count_reasons(skipped.left_out),
            "videos_skipped": count_reasons(skipped.videos),
        },
    }


def count_clips(notes: Iterable[Mapping[str, Any]], split: str) -> int:
    """Return the clips of a split."""
    return sum(note["num_clips"] for note in notes if note["split"] == split)


def tell_clips(manifest: ClipManifest) -> None:
    """Log how many clips have a caption, whole or cut, and that none is held out."""
    counts = manifest.fields["counts"]
    is_whole = counts["captions"] == counts["clips"]
    level = logging.INFO if is_whole else logging.WARNING
    logging.log(level, "captions: %d of %d clips", counts["captions"], counts["clips"])
    if counts["captions_cut"]:
        logging.warning(
            "%d captions are longer than the text encoder's tokens (prepare.text_tokens) and cut",
            counts["captions_cut"],
        )
    if not manifest.num_clips("test"):
        logging.warning(
            "no clip is held out: evaluation will compare with training clips; "
            "prepare.test_share or a column `split` holds some out"
        )
