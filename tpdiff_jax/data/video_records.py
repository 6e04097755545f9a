"""Prepared clips as a data set: clip (split, seed, index) is a pure function of the manifest.

Order, flips and damaged records: `stored_clips`.
"""

import dataclasses
import functools
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import logging
from numpy.typing import NDArray

from tpdiff_jax.checks import naming
from tpdiff_jax.clips.clip_records import ClipRecord, RecordError, array_facts, record_from_bytes
from tpdiff_jax.clips.empty_prompt import read_empty_prompt
from tpdiff_jax.clips.record_manifest import (
    ClipManifest,
    check_says_what_clips_are,
    read_clip_manifest,
)
from tpdiff_jax.clips.several_captions import captions_per_video, facts_of_one, take_caption
from tpdiff_jax.clips.shard_hashes import check_shard_hashes
from tpdiff_jax.data.requests import Requests
from tpdiff_jax.data.stored_clips import (
    ClipNumber,
    RecordReader,
    check_flip,
    check_folder,
    draw_caption,
    is_flipped,
    refuse_captions,
    to_network,
)
from tpdiff_jax.files.open_files import allow_many_open_files, naming_open_files
from tpdiff_jax.types import CondShapes

if TYPE_CHECKING:
    from array_record.python.array_record_data_source import ArrayRecordDataSource


class ShardSlice(NamedTuple):
    """A whole shard, in the terms of array_record's readers; no file is opened to count it."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoRecordsSpec:
    """A folder that `--mode=prepare` has finished.

    Args:
        folder: the prepared folder.
        horizontal_flip: mirror a random half of the training clips. Captions are not changed, so
            leave it off where they say left and right.
        max_bad_share: share of a split's records that may be unreadable before the run stops.
        is_for_training: whether there must be training clips; clips to measure with need none.

    Raises:
        ValueError: when the folder is not complete or has clips of several shapes, or the clips
            cannot be mirrored.
    """

    folder: str
    horizontal_flip: bool = False
    max_bad_share: float = 0.01
    is_for_training: bool = True

    def __post_init__(self) -> None:
        if names := list(self.manifest.buckets):
            raise ValueError(f"data.folder={self.folder!r} has buckets; open one: {names}")
        with naming("data.folder"):
            check_says_what_clips_are(pathlib.Path(self.folder), self.manifest)
        num_clips = self.num_clips("train")
        num_clips += 0 if self.is_for_training else self.num_clips("test")
        check_folder(self.folder, num_clips, self.max_bad_share)
        check_flip(self.horizontal_flip, self.is_pixels)

    @functools.cached_property
    def manifest(self) -> ClipManifest:
        """What the folder holds."""
        return read_clip_manifest(pathlib.Path(self.folder))

    @functools.cached_property
    def _reader(self) -> RecordReader:
        return RecordReader(self.max_bad_share)

    @property
    def _arrays(self) -> Mapping[str, Mapping[str, Any]]:
        return self.manifest.fields["arrays"]

    @property
    def _captions_per_video(self) -> int:
        return captions_per_video(self.manifest.fields)

    @property
    def captions(self) -> str:
        """How many clips have a caption, as in "28 of 30 clips"."""
        counts = self.manifest.fields.get("counts", {})
        return f"{counts.get('captions', '?')} of {counts.get('clips', '?')} clips"

    @property
    def is_pixels(self) -> bool:
        """Whether clips are stored as pixels; latents otherwise."""
        return self._arrays["video"]["dtype"] == "uint8"

    @property
    def num_frames(self) -> int:
        """Frames per clip."""
        return self._arrays["video"]["shape"][0]

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one frame."""
        _, height, width, channels = self._arrays["video"]["shape"]
        return (height, width, channels)

    def num_clips(self, split: str) -> int:
        """Clips of a split, "train" or "test"."""
        return self.manifest.num_clips(split)

    @property
    def num_classes(self) -> int:
        """None: clips have no class."""
        return 0

    @property
    def num_digits(self) -> int:
        """Labels per clip: none."""
        return 0

    @property
    def cond_shapes(self) -> CondShapes:
        """Shape and dtype of a clip's condition: no label, and what an encoder has stored."""
        stored = {
            name: (tuple(fact["shape"]), np.dtype(fact["dtype"]))
            for name, fact in facts_of_one(self._arrays, self._captions_per_video).items()
            if name != "video"
        }
        return {"label": ((0,), np.dtype(np.int32)), **stored}

    @functools.cached_property
    def null_cond(self) -> Mapping[str, np.ndarray]:
        """The encoded empty prompt, where an encoder has stored text; no axis of clips."""
        return read_empty_prompt(pathlib.Path(self.folder), self.manifest)

    @property
    def encoders(self) -> Mapping[str, Mapping[str, Any]]:
        """What clips were made with: facts of the encoders "video" and "text"."""
        video = {"name": "pixels" if self.is_pixels else "unknown"}
        return {"video": video, "text": {"name": "none"}, **self.manifest.fields["encoder"]}

    @property
    def fps(self) -> float:
        """Frames per second of the clips, decoded."""
        return float(self.manifest.fields["fps"])

    def requests(self, num_videos: int) -> Requests:
        """What held-out clips show, or training clips where none are held out."""
        split = "test" if self.manifest.num_clips("test") else "train"
        if split == "train":
            logging.warning("samples show what training clips do: no clip is held out")
        num_clips = min(num_videos, self.manifest.num_clips(split))
        clips = [self.clip(split, 0, index) for index in range(num_clips)]
        cond = {name: np.stack([clip[name] for clip in clips]) for name in self.cond_shapes}
        captions = [clip["caption"] for clip in clips] if self.null_cond else []
        return Requests(cond, captions).repeated_to(num_videos)

    @property
    def world(self) -> None:
        """No exact evaluator: nothing is known about these clips but themselves."""
        return None

    def fingerprint(self) -> dict[str, Any]:
        """What decides the bytes of every clip."""
        return {
            "manifest_sha256": self.manifest.fingerprint,
            "horizontal_flip": self.horizontal_flip,
        }

    def captions_to_labels(self, captions: Sequence[str]) -> NDArray[np.int32]:
        """Refuse captions: clips have no labels."""
        return refuse_captions(captions)

    def clip(self, split: str, seed: int, index: int) -> dict[str, Any]:
        """Return clip `index`.

        Args:
            split: "train" or "test".
            seed: non-negative seed of orders and flips.
            index: non-negative index; an epoch later the same clips come in another order.

        Returns:
            video: float32, pixels in [-1, 1] or latents, [f, h, w, c].
            label: int32 [0].
            caption: text; where the clip has several, one drawn from (seed, index) for training,
                and the first for the test split.
            name: of the clip.
            Further arrays that an encoder stored, such as text embeddings.

        Raises:
            ValueError: for an unknown split, one without clips, a negative seed or index, or a
                shard that is another file than the manifest names.
            TooManyBadClipsError: when too many records cannot be read.
            OpenFilesError: when there are more shards than files that may be open.
        """
        check_shard_hashes(self.folder, self.manifest)
        number, num_clips = ClipNumber(split, seed, index), self.num_clips(split)

        def read(place: int) -> ClipRecord:
            with naming_open_files(
                f"data.folder={self.folder!r} has {len(self.manifest.shards)} shards, which stay "
                "open; a larger prepare.videos_per_shard makes fewer"
            ):
                record = record_from_bytes(open_shards(self.folder, self.manifest, split)[place])
            if array_facts(record.arrays) != self._arrays:
                raise RecordError(f"record {record.name!r} has other arrays")
            if len(record.captions) > self._captions_per_video:
                raise RecordError(f"record {record.name!r} has {len(record.captions)} captions")
            return record

        # ArrayRecord raises RuntimeError where a checksum does not match.
        record = self._reader.read(number, num_clips, read, (RuntimeError, ValueError))
        is_mirrored = self.horizontal_flip and is_flipped(number)
        drawn = draw_caption(number, len(record.captions))
        return {
            **take_caption(record.arrays, drawn, self._captions_per_video),
            "video": to_network(record.arrays["video"], is_mirrored),
            "label": np.zeros((0,), np.int32),
            "caption": record.captions[drawn],
            "name": record.name,
        }


_SOURCES: dict[tuple[str, str, str], "ArrayRecordDataSource"] = {}
_SOURCES_LOCK = threading.Lock()


def open_shards(folder: str, manifest: ClipManifest, split: str) -> "ArrayRecordDataSource":
    """Return the reader of a split; files open when they are first read, once a process.

    Args:
        folder: of the clips.
        manifest: names its shards.
        split: "train" or "test".

    Returns:
        Records by number, in the order of the manifest.
    """
    # Here: what opens no shard does without the library.
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    key = (folder, manifest.fingerprint, split)
    with _SOURCES_LOCK:
        if key not in _SOURCES:
            slices = [
                ShardSlice(str(pathlib.Path(folder, s.name)), 0, s.num_clips, s.num_clips)
                for s in manifest.shards
                if s.split == split and s.num_clips
            ]
            allow_many_open_files()  # one a shard
            _SOURCES[key] = ArrayRecordDataSource(slices)
        return _SOURCES[key]
