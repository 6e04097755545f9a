"""What a run folder keeps of the clips that it trains on, so that it samples without them.

`clips/clips.json` holds shapes, encoders and fingerprint of every bucket, `clips/NAME.null` and
`clips/NAME.request_J` the encoded empty prompt and the conditions of the first sample videos, in
the format of prepared clips. Clips themselves are not kept: where the folder of clips has moved,
it is known again by its fingerprint, wherever it lies.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.clips.clip_records import (
    ClipRecord,
    RecordError,
    record_from_bytes,
    record_to_bytes,
)
from tpdiff_jax.data.dataset import Clip, Dataset
from tpdiff_jax.data.requests import Requests
from tpdiff_jax.data.stored_clips import refuse_captions
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import read_json, write_json
from tpdiff_jax.types import CondShapes

CLIPS_FOLDER, FACTS_FILE = "clips", "clips.json"
_MAX_REQUESTS = 16


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RecordedClips:
    """A data set whose clips are not at hand.

    Attributes:
        num_frames: frames of a clip.
        frame_shape: (h, w, c) of a frame.
        fps: frames a second, of the decoded ones for latents.
        is_pixels: whether clips are pixels.
        encoders: facts of the encoders "video" and "text".
        captions: how many clips have a caption, in words.
        counts: clips of each split.
        facts: the fingerprint.
        null_cond: the encoded empty prompt.
        first_requests: what the first sample videos are asked to show.
    """

    num_frames: int
    frame_shape: tuple[int, int, int]
    fps: float
    is_pixels: bool
    encoders: Mapping[str, Mapping[str, Any]]
    captions: str
    counts: Mapping[str, int]
    facts: Mapping[str, Any]
    null_cond: Mapping[str, NDArray]
    first_requests: Requests

    @property
    def num_digits(self) -> int:
        """Labels per clip: stored clips have none."""
        return 0

    @property
    def num_classes(self) -> int:
        """Values of a label: stored clips have none."""
        return 0

    @property
    def cond_shapes(self) -> CondShapes:
        """Shape and dtype of a clip's condition."""
        encoded = {name: (array.shape, array.dtype) for name, array in self.null_cond.items()}
        return {"label": ((0,), np.dtype(np.int32)), **encoded}

    @property
    def world(self) -> None:
        """No exact evaluator."""
        return None

    def num_clips(self, split: str) -> int:
        """Clips that the split had when the run began."""
        return self.counts.get(split, 0)

    def fingerprint(self) -> Mapping[str, Any]:
        """What decides the bytes of every clip."""
        return self.facts

    def requests(self, num_videos: int) -> Requests:
        """The recorded ones, again from the start where more are wanted."""
        return self.first_requests.repeated_to(num_videos)

    def captions_to_labels(self, captions: Sequence[str]) -> NDArray[np.int32]:
        """Refuse captions: clips have no labels."""
        return refuse_captions(captions)

    def clip(self, split: str, seed: int, index: int) -> Clip:
        """Refuse: there are no clips.

        Args:
            split: "train" or "test".
            seed: of the order.
            index: of the clip.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"clip {index} of split {split!r} (seed {seed}) is wanted, and data.folder does not "
            "hold the run's clips: --data_folder=FOLDER says where they lie now"
        )


def record_clips(workdir: pathlib.Path, datasets: Mapping[str, Dataset]) -> None:
    """Write what a run folder keeps of its clips.

    Args:
        workdir: the run's folder.
        datasets: stored clips of each bucket, by its name; "" where clips have one shape.
    """
    folder, entries = workdir / CLIPS_FOLDER, {}
    for number, (bucket, dataset) in enumerate(datasets.items()):
        requests = dataset.requests(_MAX_REQUESTS)
        records = {"null": ClipRecord("", "", dict(dataset.null_cond))}
        for j in range(requests.num_videos):
            arrays = {name: array[j] for name, array in requests.cond.items()}
            caption = requests.captions[j] if requests.captions else ""
            records[f"request_{j}"] = ClipRecord("", caption, arrays)
        for name, record in records.items():
            write_durably(folder / f"{number}.{name}", record_to_bytes(record))
        entries[bucket] = {
            "num_frames": dataset.num_frames,
            "frame_shape": list(dataset.frame_shape),
            "fps": dataset.fps,
            "is_pixels": dataset.is_pixels,
            "encoders": {name: dict(facts) for name, facts in dataset.encoders.items()},
            "captions": dataset.captions,
            "counts": {split: dataset.num_clips(split) for split in ("train", "test")},
            "facts": dict(dataset.fingerprint()),
            "num_requests": requests.num_videos,
            "has_captions": bool(requests.captions),
        }
    write_json(folder / FACTS_FILE, {"buckets": entries})  # last: it says that the rest is there


def read_recorded_clips(workdir: pathlib.Path) -> dict[str, RecordedClips]:
    """Return what a run folder keeps of its clips, by bucket; nothing where it keeps none.

    Args:
        workdir: the run's folder.

    Raises:
        ValueError: naming a file that is not as it was written.
    """
    folder = workdir / CLIPS_FOLDER
    if not (folder / FACTS_FILE).is_file():
        return {}
    try:
        entries = read_json(folder / FACTS_FILE)["buckets"]
        return {
            bucket: _read(folder, number, dict(entry))
            for number, (bucket, entry) in enumerate(entries.items())
        }
    except (RecordError, OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} is not as it was written: {error}") from error


def _read(folder: pathlib.Path, number: int, entry: dict[str, Any]) -> RecordedClips:
    def record(name: str) -> ClipRecord:
        return record_from_bytes((folder / f"{number}.{name}").read_bytes())

    found = [record(f"request_{j}") for j in range(entry.pop("num_requests"))]
    captions = [clip.caption for clip in found] if entry.pop("has_captions") else []
    cond = {name: np.stack([clip.arrays[name] for clip in found]) for name in found[0].arrays}
    height, width, channels = entry.pop("frame_shape")
    return RecordedClips(
        **entry,
        frame_shape=(height, width, channels),
        null_cond=record("null").arrays,
        first_requests=Requests(cond, captions),
    )
