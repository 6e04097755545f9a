"""A folder that TensorFlow Datasets has prepared as array_record, as a pure data set.

Order, flips and damaged records: `stored_clips`. The folder is read through
tensorflow_datasets, without TensorFlow, a network or the code that made it: features of fixed shape
need no more. Its JSON names the classes of its features; only TFDS's own are accepted. TFDS keeps
no hash of its shards, so that the fingerprint holds their names, sizes and the hash of both ends of
each: shards that were exchanged, or replaced by others, are another data set.
"""

import contextlib
import dataclasses
import functools
import glob
import hashlib
import json
import os
import pathlib
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from absl import logging
from numpy.typing import NDArray

from tpdiff_jax.checks import naming
from tpdiff_jax.clips.split_names import SPLIT_NAMES, find_split, split_key
from tpdiff_jax.data.requests import Requests
from tpdiff_jax.data.stored_clips import (
    ClipNumber,
    RecordReader,
    check_flip,
    check_folder,
    is_flipped,
    refuse_captions,
    to_network,
)
from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.files.json_schema import TEXT, Leaf, ListOf, Schema, check_json
from tpdiff_jax.files.open_files import allow_many_open_files, naming_open_files
from tpdiff_jax.types import CondShapes

INFO_FILE, FEATURES_FILE = "dataset_info.json", "features.json"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # where the folder states none
_FEATURE_CLASSES = "tensorflow_datasets.core.features."
_END_BYTES = 2**17
# Protobuf writes whole numbers of 64 bits as text.
_LENGTH = Leaf("a count", lambda v: re.fullmatch(r"[0-9]{1,18}", str(v)) is not None)
_NAME = Leaf("a name", lambda v: isinstance(v, str) and re.fullmatch(r"\w[\w.+-]*", v) is not None)
_SPLIT: Schema = {"name": _NAME, "shardLengths?": ListOf(_LENGTH), "filepathTemplate?": TEXT}
_SOURCES: dict[tuple[str, str], Any] = {}
_SOURCES_LOCK = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsFolderSpec:
    """A version's folder, such as DATA/my_clips/1.0.0, in the format array_record.

    Args:
        folder: holds dataset_info.json, features.json and the shards.
        video_key: feature with the clips, [f, h, w, c] of fixed shape; uint8 are pixels, floats
            are taken as they are.
        caption_key: feature with captions; "" for none.
        fps: frames per second, which TFDS does not record.
        horizontal_flip: mirror a random half of the training clips.
        max_bad_share: share of a split's records that may be unreadable before the run stops.

    Raises:
        ValueError: when the folder is no such data set.
    """

    folder: str
    video_key: str = "video"
    caption_key: str = "caption"
    fps: float = 8.0
    horizontal_flip: bool = False
    max_bad_share: float = 0.01
    captions: ClassVar[str] = ""  # of `Dataset`: TFDS does not count them

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise ValueError(f"data.fps={self.fps} must be positive")
        check_folder(self.folder, self.num_clips("train"), self.max_bad_share)
        for field, key in (("video_key", self.video_key), ("caption_key", self.caption_key)):
            if key not in ("", *self._first) or not self.video_key:
                keys = ", ".join(self._first)
                raise ValueError(f"data.{field}={key!r} is no feature; there are {keys}")
        if self.caption_key and not isinstance(text := self._first[self.caption_key], bytes):
            raise ValueError(
                f"data.caption_key={self.caption_key!r} holds {type(text).__name__}; allowed: one "
                "text a clip, or '' for none"
            )
        if self._first_video.ndim != 4:
            raise ValueError(
                f"data.video_key={self.video_key!r} holds arrays of shape "
                f"{self._first_video.shape}; allowed: [f, h, w, c]"
            )
        dtype = self._first_video.dtype
        if not (self.is_pixels or np.issubdtype(dtype, np.floating)):
            raise ValueError(
                f"data.video_key={self.video_key!r} holds {dtype}; allowed: uint8 (pixels), floats"
            )
        check_flip(self.horizontal_flip, self.is_pixels)

    @functools.cached_property
    def _info(self) -> Mapping[str, Any]:
        """Content of dataset_info.json, checked, and the clips of each split."""
        folder = pathlib.Path(self.folder)
        with naming("data.folder"):
            info, features = (read_json(folder / name) for name in (INFO_FILE, FEATURES_FILE))
        if info.get("fileFormat") != "array_record":
            raise ValueError(
                f"data.folder={self.folder!r} is in the format {info.get('fileFormat')!r}; "
                "allowed: array_record"
            )
        _check_features(folder / FEATURES_FILE, features)
        with naming("data.folder"):
            check_json(info, {"splits?": ListOf(_SPLIT)}, str(folder / INFO_FILE))
        shards, counts = [], {}
        for split in info.get("splits", ()):
            name, template = split["name"], split.get("filepathTemplate") or _TEMPLATE
            counts[name] = sum(map(int, split.get("shardLengths", ())))
            found = _find_shards(folder, name, template)
            if counts[name] and find_split(name) and not found:
                raise ValueError(
                    f"data.folder={self.folder!r} lacks the shards {template} of {name}"
                )
            shards += found
        if (number := sum(counts.values())) > sum(path.stat().st_size for path in shards):
            raise ValueError(f"data.folder: {number} clips cannot lie in the shards' bytes")
        return {"counts": counts, "shards": {p.name: _shard_facts(p) for p in shards}}

    @functools.cached_property
    def _reader(self) -> RecordReader:
        return RecordReader(self.max_bad_share)

    def _split_name(self, split: str) -> str | None:
        counts, order = self._info["counts"], list(SPLIT_NAMES)
        names = [name for name in counts if counts[name] and find_split(name) == split]
        return min(names, key=lambda name: order.index(split_key(name)), default=None)

    def num_clips(self, split: str) -> int:
        """Clips of "train" or "test"; `split_names` says by which names they go."""
        name = self._split_name(split)
        return self._info["counts"][name] if name else 0

    @functools.cached_property
    def _first(self) -> Mapping[str, Any]:
        source = open_split(self.folder, self._split_name("train") or "")
        return first_readable(self.folder, source, self._num_shards)

    @property
    def _num_shards(self) -> int:
        return len(self._info["shards"])

    @functools.cached_property
    def _first_video(self) -> NDArray:
        return np.asarray(self._first[self.video_key])

    @property
    def is_pixels(self) -> bool:
        """Whether clips are stored as pixels."""
        return self._first_video.dtype == np.uint8

    @property
    def num_frames(self) -> int:
        """Frames per clip."""
        return self._first_video.shape[0]

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one frame."""
        _, height, width, channels = self._first_video.shape
        return (height, width, channels)

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
        """Shape and dtype of a clip's condition: no label."""
        return {"label": ((0,), np.dtype(np.int32))}

    @property
    def null_cond(self) -> Mapping[str, NDArray]:
        """No encoded prompt."""
        return {}

    @property
    def encoders(self) -> Mapping[str, Mapping[str, Any]]:
        """What clips were made with: pixels, or nothing that TFDS records."""
        return {
            "video": {"name": "pixels" if self.is_pixels else "unknown"},
            "text": {"name": "none"},
        }

    @property
    def world(self) -> None:
        """No exact evaluator: nothing is known about these clips but themselves."""
        return None

    def requests(self, num_videos: int) -> Requests:
        """Nothing in particular, `num_videos` times."""
        return Requests({"label": np.zeros((num_videos, 0), np.int32)}, [])

    def fingerprint(self) -> dict[str, Any]:
        """What decides the bytes of every clip, as far as TFDS records it."""
        folder, digest = pathlib.Path(self.folder), hashlib.sha256()
        for name in (INFO_FILE, FEATURES_FILE):
            digest.update((folder / name).read_bytes())
        digest.update(json.dumps(self._info["shards"], sort_keys=True).encode())
        return {
            "tfds_sha256": digest.hexdigest(),
            "video_key": self.video_key,
            "horizontal_flip": self.horizontal_flip,
        }

    def captions_to_labels(self, captions: Sequence[str]) -> NDArray[np.int32]:
        """Refuse captions: clips have no labels."""
        return refuse_captions(captions)

    def clip(self, split: str, seed: int, index: int) -> dict[str, Any]:
        """Return clip `index`; see `VideoRecordsSpec.clip`.

        Args:
            split: "train" or "test".
            seed: non-negative seed of orders and flips.
            index: non-negative index; an epoch later the same clips come in another order.

        Returns:
            video: float32, pixels in [-1, 1] or numbers as stored, [f, h, w, c].
            label: int32 [0].
            caption: text.

        Raises:
            ValueError: for an unknown split, one without clips, or a negative seed or index.
            TooManyBadClipsError: when too many records cannot be read.
            OpenFilesError: when there are more shards than files that may be open.
        """
        number, num_clips = ClipNumber(split, seed, index), self.num_clips(split)

        def read(place: int) -> Mapping[str, Any]:
            source = open_split(self.folder, self._split_name(split) or "")
            with _naming_open_shards(self.folder, self._num_shards):
                record = source[place]
            if np.shape(record[self.video_key]) != self._first_video.shape:
                raise ValueError("the clip has another shape")
            return record

        record = self._reader.read(number, num_clips, read, unreadable())
        is_mirrored = self.horizontal_flip and is_flipped(number)
        caption = record[self.caption_key] if self.caption_key else b""
        return {
            "video": to_network(np.asarray(record[self.video_key]), is_mirrored),
            "label": np.zeros((0,), np.int32),
            "caption": caption.decode("utf-8", "replace"),
        }


def _find_shards(folder: pathlib.Path, split: str, template: str) -> list[pathlib.Path]:
    """The files of a split; a template of TFDS says what they are called."""
    if "/" in template or "\\" in template:
        raise ValueError(f"{folder / INFO_FILE}: {template!r} leads out of the folder")
    known = {"SPLIT": split, "FILEFORMAT": "array_record"}
    pattern = re.sub(r"\{(\w+)\}", lambda name: known.get(name[1], "*"), glob.escape(template))
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _shard_facts(path: pathlib.Path) -> list[Any]:
    """Size and SHA-256 of both ends of a shard; the last bytes hold the places of all records."""
    with path.open("rb") as file:
        ends = hashlib.sha256(file.read(_END_BYTES))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES))
        ends.update(file.read(_END_BYTES))
    return [size, ends.hexdigest()]


def open_split(folder: str, split: str) -> Any:
    """Return TFDS's reader of a split, opened once a process.

    Raises:
        ValueError: when TFDS cannot read the folder.
    """
    with _SOURCES_LOCK:
        if (folder, split) not in _SOURCES:
            import tensorflow_datasets as tfds

            allow_many_open_files()  # one a shard
            try:
                source = tfds.builder_from_directory(folder).as_data_source(split)
            except Exception as error:  # TFDS raises many types
                raise ValueError(f"data.folder={folder!r} cannot be read: {error}") from error
            _SOURCES[folder, split] = source
        return _SOURCES[folder, split]


def first_readable(folder: str, source: Any, num_shards: int) -> Mapping[str, Any]:
    """Return the first record that can be read.

    Args:
        folder: for messages.
        source: records by number.
        num_shards: files that they lie in.

    Raises:
        ValueError: when there is none, or features need TensorFlow.
        OpenFilesError: when there are more shards than files that may be open.
    """
    for position in range(len(source)):
        try:
            with _naming_open_shards(folder, num_shards):
                return source[position]
        except ModuleNotFoundError as error:
            raise ValueError(
                f"data.folder={folder!r} has features that need {error.name} to be decoded; store "
                "clips as tfds.features.Tensor of fixed shape"
            ) from error
        except unreadable() as error:
            logging.warning("record %d of %s cannot be read: %s", position, folder, error)
    raise ValueError(f"data.folder={folder!r}: no record can be read")


def _naming_open_shards(folder: str, number: int) -> contextlib.AbstractContextManager[None]:
    return naming_open_files(f"data.folder={folder!r} has {number} shards, which stay open")


def unreadable() -> tuple[type[Exception], ...]:
    """Return what a damaged record raises: ArrayRecord's checksum, protobuf, a missing feature."""
    from google.protobuf.message import DecodeError

    return (RuntimeError, ValueError, KeyError, DecodeError)


def _check_features(path: pathlib.Path, value: Any) -> None:
    """Refuse a class that is none of TFDS's features: TFDS would import its module."""
    if isinstance(value, Mapping):
        name = value.get("pythonClassName")
        if name is not None and not str(name).startswith(_FEATURE_CLASSES):
            raise ValueError(f"{path}: {name!r} is no feature of tensorflow_datasets")
        for item in value.values():
            _check_features(path, item)
