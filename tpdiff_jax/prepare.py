"""Preparation: videos and captions in, shards of clips and a manifest out. Read it top to bottom.

    read the table -> curate, plan the shards -> decode, encode, write -> manifest

Killed anywhere, the same command goes on at the first unfinished shard and ends with the same
bytes. A bad clip never stops it: it is skipped, counted by reason and listed in `skipped.jsonl`;
only too many of them do.
"""

import importlib.metadata
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.clips.record_manifest import (
    CLIP_MANIFEST_FILE,
    SPLITS,
    ClipManifest,
    read_clip_manifest,
)
from tpdiff_jax.files import file_lock
from tpdiff_jax.preparation.caption_tables import read_sources
from tpdiff_jax.preparation.clip_encoder import PIXELS, ClipEncoder
from tpdiff_jax.preparation.clip_source import ClipSource, SkippedClip
from tpdiff_jax.preparation.decode_pool import DecodePool, Outcome, decoding
from tpdiff_jax.preparation.finished_clips import (
    count_clips,
    tell_clips,
    write_clip_manifest,
    write_index,
)
from tpdiff_jax.preparation.frame_resize import RESIZE_KERNEL
from tpdiff_jax.preparation.output_folder import (
    ORIGIN_FILE,
    check_output_folder,
    open_output_folder,
)
from tpdiff_jax.preparation.prepare_spec import PrepareSpec
from tpdiff_jax.preparation.ray_shards import RayEngine
from tpdiff_jax.preparation.shard_plan import Plan, ShardJob, make_plan
from tpdiff_jax.preparation.shard_writer import (
    read_notes,
    write_notes,
    write_shard,
)
from tpdiff_jax.preparation.skipped_clips import (
    SkippedClips,
    count_reasons,
    shown_skip,
)
from tpdiff_jax.run_log.progress import Progress

DECODING_PACKAGES = ("av", "pillow", "array_record")  # another version may give other bytes


def prepare(
    spec: PrepareSpec,
    folder: pathlib.Path,
    encoder: ClipEncoder = PIXELS,
    engine: RayEngine | None = None,
) -> ClipManifest | None:
    """Prepare a folder of clips to train from.

    Args:
        spec: sources, clips and limits.
        folder: output; a folder of the same preparation is gone on with.
        encoder: what to store of a clip; by default its pixels.
        engine: what makes the shards; None makes them here. Its encoder is the same one.

    Returns:
        The folder's manifest, or None while other hosts have shards to make.

    Raises:
        ValueError: when source or table cannot be used, or the folder holds something else.
        TooManyBadClipsError: when too many rows or videos are bad; the list says which.
    """
    # ---- read the table
    root, table = pathlib.Path(spec.source), pathlib.Path(spec.table) if spec.table else None
    clips, left = read_sources(
        root,
        table,
        spec.columns,
        max_caption_bytes=spec.max_caption_bytes,
        also_allowed=spec.also_allowed,
        captions_per_video=spec.captions_per_video,
        needs_captions=spec.needs_captions,
    )
    is_left_out = [c.reason == "missing_file" and spec.missing_files != "bad" for c in left]
    skipped = SkippedClips(
        folder,
        spec.max_bad_share,
        spec.bad_allowed,
        left_out=list(itertools.compress(left, is_left_out)),
        rows=[c for c, is_out in zip(left, is_left_out, strict=True) if not is_out],
    )

    # ---- curate, plan the shards
    plan = make_plan(clips, spec)
    made_of = identity(spec, plan, encoder)
    check_output_folder(folder, made_of)
    skipped.check("rows", len(clips) + len(skipped.rows))
    skipped.tell_rows()
    if not plan.num_videos:
        raise ValueError(f"prepare.source={spec.source!r}: no video is left to prepare")
    open_output_folder(folder, made_of)

    # ---- decode, encode, write
    logging.info("%d of %d videos chosen, %d shards", plan.num_videos, len(clips), len(plan.jobs))
    lock_file = folder / f".host-{spec.host_index}-of-{spec.host_count}.lock"
    with file_lock.hold(lock_file, f"--workdir={folder} is being prepared by another process"):
        make_shards(spec, folder, plan, encoder, skipped, engine)

    # ---- manifest
    return finish(spec, folder, plan, encoder, skipped)


def output_folders(spec: PrepareSpec, folder: pathlib.Path) -> dict[Bucket, pathlib.Path]:
    """Return where clips of each shape go: the folder itself, or one inside for each bucket."""
    return {b: folder / str(b) if spec.buckets else folder for b in spec.clip_buckets}


def identity(spec: PrepareSpec, plan: Plan, encoder: ClipEncoder) -> dict[str, Any]:
    """Return everything that decides the output's bytes.

    Args:
        spec: the config group `prepare`.
        plan: sources and shards.
        encoder: makes arrays of frames and captions.

    Returns:
        Named facts, as JSON holds them.
    """
    return {
        "settings": spec.settings,
        "source_list_sha256": plan.source_list_sha256,
        "chosen_ids_sha256": plan.chosen_ids_sha256,
        "encoder": encoder.facts,
        "resize": RESIZE_KERNEL,
        "versions": {name: importlib.metadata.version(name) for name in DECODING_PACKAGES},
    }


def make_shards(
    spec: PrepareSpec,
    folder: pathlib.Path,
    plan: Plan,
    encoder: ClipEncoder,
    skipped: SkippedClips,
    engine: RayEngine | None = None,
) -> None:
    """Make this host's shards that are not there yet.

    Args:
        spec: the config group `prepare`.
        folder: to write to.
        plan: sources and shards.
        encoder: makes arrays of frames and captions.
        skipped: gets the videos left out, earlier sessions' too.
        engine: what makes them; None makes them here.

    Raises:
        TooManyBadClipsError: when more than `prepare.max_bad_share` of the videos are bad.
    """
    folders, mine = output_folders(spec, folder), plan.jobs[spec.host_index :: spec.host_count]
    notes = {job.name: read_notes(folders, job.name) for job in mine}
    todo = [job for job in mine if notes[job.name] is None]
    if todo:
        (folder / ORIGIN_FILE).unlink(missing_ok=True)
    skipped.videos = skipped_of(note for note in notes.values() if note)
    total, rest = (sum(len(job.clips) for job in jobs) for jobs in (mine, todo))
    with Progress(total, initial=total - rest, label="prepare", unit="video") as progress:
        if engine is None:
            _make_here(spec, folders, todo, encoder, skipped, plan.num_videos, progress)
            return
        made_of, done = identity(spec, plan, encoder), total - rest
        for job, made in engine.shards(spec, folders, todo, made_of):
            write_notes(folders, made)
            notes[job.name], done = made, done + len(job.clips)
            for clip in skipped_of([made]):
                logging.warning("video left out: %s", shown_skip(clip))
            skipped.videos = skipped_of(note for note in notes.values() if note)
            progress.update(done, bad=len(skipped.videos))
            skipped.check("videos", plan.num_videos)


def _make_here(
    spec: PrepareSpec,
    folders: Mapping[Bucket, pathlib.Path],
    jobs: Sequence[ShardJob],
    encoder: ClipEncoder,
    skipped: SkippedClips,
    num_videos: int,
    progress: Progress,
) -> None:
    """Make shards in this process, one after the other, with `prepare.num_workers` to decode."""
    root = pathlib.Path(spec.source).resolve()
    with DecodePool(root, spec.clip_format, spec.num_workers, decoding(spec.also_allowed)) as pool:

        def watched(outcomes: Iterable[tuple[ClipSource, Outcome]]) -> Iterator[Any]:
            for clip, outcome in outcomes:
                if isinstance(outcome, BadClipError):
                    skipped.videos.append(SkippedClip(path=clip.path, **vars(outcome)))
                    logging.warning("video left out: %s", shown_skip(skipped.videos[-1]))
                    skipped.check("videos", num_videos)
                progress.update(progress.done + 1, bad=len(skipped.videos))
                yield clip, outcome

        # One stream through all shards: workers read ahead into the next one.
        stream = watched(pool.outcomes(clip for job in jobs for clip in job.clips))
        for job in jobs:
            outcomes = itertools.islice(stream, len(job.clips))
            write_shard(folders, job, outcomes, encoder, spec.captions_per_video)


def finish(
    spec: PrepareSpec, folder: pathlib.Path, plan: Plan, encoder: ClipEncoder, skipped: SkippedClips
) -> ClipManifest | None:
    """Write manifests and list of skipped clips, once the shards of all hosts are there.

    Args:
        spec: the config group `prepare`.
        folder: to write to.
        plan: sources and shards.
        encoder: makes the arrays of the empty prompt.
        skipped: what was left out; written as `skipped.jsonl`.

    Returns:
        The folder's manifest; None while shards of other hosts are missing.

    Raises:
        ValueError: when no clip is left.
        TooManyBadClipsError: when more than `prepare.max_bad_share` of the videos are bad.
    """
    folders = output_folders(spec, folder)
    notes = [read_notes(folders, job.name) for job in plan.jobs]
    present = [note for note in notes if note]
    if len(present) < len(notes):
        logging.info("%d shards of other hosts are missing", len(notes) - len(present))
        return None
    skipped.videos = skipped_of(present)
    skipped.check("videos", plan.num_videos)
    skipped.write()
    made_of, null, written = identity(spec, plan, encoder), encoder.encode_null(), []
    for path, bucket_notes in zip(folders.values(), zip(*present, strict=True), strict=True):
        if spec.buckets and not count_clips(bucket_notes, "train"):
            logging.warning("prepare.buckets: no training clip went to %s; left out", path.name)
            continue
        write_clip_manifest(path, bucket_notes, made_of, skipped, null)
        written.append(path)
    if spec.buckets:
        write_index(folder, written, made_of, skipped)
    manifest = read_clip_manifest(folder)
    for name, part in manifest.buckets.items() or [("clips", manifest)]:
        counts = [f"{part.num_clips(split)} {split}" for split in SPLITS]
        logging.info("%s: %s", name, ", ".join(counts))
    tell_clips(manifest)
    logging.info("skipped: %s", count_reasons(skipped.rows + skipped.videos) or "none")
    logging.info("manifest: %s, SHA-256 %s", folder / CLIP_MANIFEST_FILE, manifest.fingerprint)
    return manifest


def skipped_of(notes: Iterable[Sequence[Mapping[str, Any]]]) -> list[SkippedClip]:
    """Return the videos that finished shards left out, in order; all buckets' notes say so."""
    return [SkippedClip(**clip) for first, *_ in notes for clip in first["skipped"]]
