"""Which videos go into which shard: fixed before the first is decoded.

A shard is a run of consecutive chosen videos of one split. Nothing that happens while decoding
moves a video to another shard, so shards can be made in any order, by any number of processes and
hosts, stopped and made again, with the same bytes. A bad video leaves no gap: its shard has fewer
clips, and training draws from those that the manifest counts.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from tpdiff_jax.clips.record_manifest import SPLITS
from tpdiff_jax.files.json_files import sha256_of_lines
from tpdiff_jax.preparation.clip_source import ClipSource
from tpdiff_jax.preparation.curation import paper_choice
from tpdiff_jax.preparation.prepare_spec import PrepareSpec


class ShardJob(NamedTuple):
    """One shard to make."""

    name: str
    split: str
    clips: tuple[ClipSource, ...]


class Plan(NamedTuple):
    """Everything that preparation will do, and the identity of its input.

    Attributes:
        jobs: shards of all hosts, train first.
        source_list_sha256: of every usable row of the table.
        chosen_ids_sha256: of the chosen videos' paths, in order.
    """

    jobs: tuple[ShardJob, ...]
    source_list_sha256: str
    chosen_ids_sha256: str

    @property
    def num_videos(self) -> int:
        """Number of chosen videos."""
        return sum(len(job.clips) for job in self.jobs)


def choose(clips: Sequence[ClipSource], spec: PrepareSpec) -> list[ClipSource]:
    """Return the clips that curation takes, in their order.

    Raises:
        ValueError: when the paper's rule finds no scores to go by.
    """
    if spec.curation == "everything":
        return list(clips)
    motion, aesthetic = [c.motion for c in clips], [c.aesthetic for c in clips]
    for name, scores in (("motion", motion), ("aesthetic", aesthetic)):
        if clips and all(score is None for score in scores):
            column = getattr(spec, f"{name}_column")
            raise ValueError(
                f"prepare.curation='paper' needs {name} scores, and prepare.{name}_column="
                f"{column!r} holds none"
            )
    taken = paper_choice(motion, aesthetic, top_both=spec.top_both, top_one=spec.top_one)
    return [clip for clip, is_taken in zip(clips, taken, strict=True) if is_taken]


def split_of(clip: ClipSource, test_share: float) -> str:
    """Return the split that the table gives, or else the one of the path's hash.

    Whether a clip is held out does not depend on which other clips there are.
    """
    if clip.split:
        return clip.split
    draw = int.from_bytes(hashlib.sha256(clip.path.encode("utf-8", "replace")).digest()[:8]) / 2**64
    return "test" if draw < test_share else "train"


def make_plan(clips: Sequence[ClipSource], spec: PrepareSpec) -> Plan:
    """Curate, split and cut into shards."""
    chosen = choose(clips, spec)
    jobs = []
    for split in SPLITS:
        members = [clip for clip in chosen if split_of(clip, spec.test_share) == split]
        starts = range(0, len(members), spec.videos_per_shard)
        for number, start in enumerate(starts):
            name = f"{split}-{number:05d}-of-{len(starts):05d}.array_record"
            part = tuple(members[start : start + spec.videos_per_shard])
            jobs.append(ShardJob(name, split, part))
    return Plan(
        jobs=tuple(jobs),
        source_list_sha256=sha256_of_lines(
            [json.dumps(dataclasses.astuple(clip)) for clip in clips]
        ),
        chosen_ids_sha256=sha256_of_lines([clip.path for clip in chosen]),
    )
