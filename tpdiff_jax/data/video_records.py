"""Prepared clips as a data set: clip (split, seed, index) is a pure function of the manifest.

Every epoch goes through all clips of a split once, in an order drawn from (seed, split, epoch).
A record that cannot be read is replaced by the next one of that order: the same clip wherever and
however often it is asked for. Damaged records are logged and counted; over `max_bad_share` of the
split they stop the run.
"""

import dataclasses
import functools
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from array_record.python.array_record_data_source import ArrayRecordDataSource
from numpy.typing import NDArray

from tpdiff_jax.data.moving_digits import uniform_draws
from tpdiff_jax.data.requests import Requests
from tpdiff_jax.videos.bad_clips import TooManyBadClipsError
from tpdiff_jax.videos.clip_records import ClipRecord, RecordError, array_facts, record_from_bytes
from tpdiff_jax.videos.null_condition import read_null_condition
from tpdiff_jax.videos.record_manifest import SPLITS, Manifest, read_manifest


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

    Raises:
        ValueError: when the folder is not complete, or the clips cannot be mirrored.
    """

    folder: str
    horizontal_flip: bool = False
    max_bad_share: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"data.max_bad_share={self.max_bad_share} must lie in [0, 1]")
        if self.manifest.num_clips("train") < 1:
            raise ValueError(f"data.folder={self.folder!r} holds no training clip")
        if self.horizontal_flip and not self.is_pixels:
            raise ValueError(
                "data.horizontal_flip must be False: the folder holds latents, and a mirrored "
                "latent is not the latent of the mirrored clip"
            )

    @functools.cached_property
    def manifest(self) -> Manifest:
        """What the folder holds."""
        return read_manifest(pathlib.Path(self.folder))

    @functools.cached_property
    def _bad(self) -> "BadRecords":
        return BadRecords(self.max_bad_share)

    @property
    def _arrays(self) -> Mapping[str, Mapping[str, Any]]:
        return self.manifest.fields["arrays"]

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
    def cond_shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of a clip's condition: no label, and what an encoder has stored."""
        stored = {
            name: (tuple(fact["shape"]), np.dtype(fact["dtype"]))
            for name, fact in self._arrays.items()
            if name != "video"
        }
        return {"label": ((0,), np.dtype(np.int32)), **stored}

    @functools.cached_property
    def null_cond(self) -> Mapping[str, np.ndarray]:
        """The encoded empty prompt, where an encoder has stored text; no axis of clips."""
        return read_null_condition(pathlib.Path(self.folder), self.manifest)

    @property
    def encoders(self) -> Mapping[str, Any]:
        """What clips were made with: facts of the encoders "video" and "text"."""
        return self.manifest.fields["encoder"]

    @property
    def fps(self) -> float:
        """Frames per second of the clips, decoded."""
        return float(self.manifest.fields["fps"])

    def requests(self, num_videos: int) -> Requests:
        """What held-out clips show, or training clips where none are held out."""
        split = "test" if self.manifest.num_clips("test") else "train"
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
        """Refuse captions: without text embeddings in the records, nothing was trained on them.

        Raises:
            ValueError: always.
        """
        del captions
        raise ValueError("--caption: the run was trained without captions; leave it out")

    def clip(self, split: str, seed: int, index: int) -> dict[str, Any]:
        """Return clip `index`.

        Args:
            split: "train" or "test".
            seed: non-negative seed of orders and flips.
            index: non-negative index; an epoch later the same clips come in another order.

        Returns:
            video: float32, pixels in [-1, 1] or latents, [f, h, w, c].
            label: int32 [0].
            caption: text.
            name: of the clip.
            Further arrays that an encoder stored, such as text embeddings.

        Raises:
            ValueError: for an unknown split, one without clips, or a negative seed or index.
            TooManyBadClipsError: when too many records cannot be read.
        """
        if split not in SPLITS or not self.manifest.num_clips(split):
            raise ValueError(f"split is {split!r}; data.folder={self.folder!r} has no such clips")
        if seed < 0 or index < 0:
            raise ValueError(f"seed and index are {seed} and {index}; allowed: 0, 1, ...")
        record = self._record(split, seed, index)
        video = record.arrays["video"]
        if self.is_pixels:
            video = video.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
        if self.horizontal_flip and split == "train":
            is_flipped = uniform_draws(seed, split, index, 1)[0] < 0.5
            video = video[:, :, ::-1] if is_flipped else video
        return {
            **record.arrays,
            "video": np.ascontiguousarray(video, np.float32),
            "label": np.zeros((0,), np.int32),
            "caption": record.caption,
            "name": record.name,
        }

    def _record(self, split: str, seed: int, index: int) -> ClipRecord:
        """The record at a place of the shuffled order, or the next readable one behind it."""
        num_clips = self.manifest.num_clips(split)
        epoch, place = divmod(index, num_clips)
        order = epoch_order(seed, split, epoch, num_clips)
        source = open_shards(self.folder, self.manifest, split)
        for position in np.concatenate([order[place:], order[:place]]):
            try:
                # ArrayRecord raises RuntimeError where a checksum does not match.
                record = record_from_bytes(source[int(position)])
                if array_facts(record.arrays) != self._arrays:
                    raise RecordError(f"record {record.name!r} has other arrays")
                return record
            except (RuntimeError, ValueError) as error:
                self._bad.add(split, int(position), num_clips, error)
        raise TooManyBadClipsError(f"data.folder={self.folder!r}: no record can be read")


class BadRecords:
    """Counts unreadable records, each once, over all threads of a process."""

    def __init__(self, max_share: float) -> None:
        """Allow up to `max_share` of a split."""
        self._max_share = max_share
        self._seen: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """A worker process counts for itself; locks do not travel."""
        return {"_max_share": self._max_share, "_seen": set(self._seen)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def add(self, split: str, position: int, num_clips: int, error: Exception) -> None:
        """Count a record.

        Raises:
            TooManyBadClipsError: when there are too many.
        """
        with self._lock:
            if (split, position) in self._seen:
                return
            self._seen.add((split, position))
            count = sum(s == split for s, _ in self._seen)
        reason = str(error).splitlines()[0][:200]
        logging.warning("record %d of split %s is skipped: %s", position, split, reason)
        if count > self._max_share * num_clips:
            raise TooManyBadClipsError(
                f"{count} of {num_clips} records of split {split} cannot be read, more than "
                f"data.max_bad_share={self._max_share}; the last: {reason}"
            )


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, split: str, epoch: int, num_clips: int) -> NDArray[np.int64]:
    """Return the order of an epoch: ranks of Philox's raw bits, which numpy promises to keep."""
    sequence = np.random.SeedSequence((seed, SPLITS.index(split), epoch, num_clips))
    return np.argsort(np.random.Philox(sequence).random_raw(num_clips), kind="stable")


_SOURCES: dict[tuple[str, str, str], ArrayRecordDataSource] = {}
_SOURCES_LOCK = threading.Lock()


def open_shards(folder: str, manifest: Manifest, split: str) -> ArrayRecordDataSource:
    """Return the reader of a split; files open when they are first read, once a process."""
    key = (folder, manifest.fingerprint, split)
    with _SOURCES_LOCK:
        if key not in _SOURCES:
            slices = [
                ShardSlice(str(pathlib.Path(folder, s.name)), 0, s.num_clips, s.num_clips)
                for s in manifest.shards
                if s.split == split and s.num_clips
            ]
            _SOURCES[key] = ArrayRecordDataSource(slices)
        return _SOURCES[key]
