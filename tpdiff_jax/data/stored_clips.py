"""What stored clips have in common: their order, damaged records, pixels, flips.

Every epoch goes through all clips of a split once, in an order drawn from (seed, split, epoch).
A record that cannot be read is replaced by the next one of that order: the same clip wherever and
however often it is asked for. Damaged records are logged and counted; over `max_bad_share` of the
split they stop the run.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from absl import logging
from numpy.typing import NDArray

from tpdiff_jax.checks import first_line_of
from tpdiff_jax.clips.bad_clips import TooManyBadClipsError
from tpdiff_jax.clips.record_manifest import SPLITS
from tpdiff_jax.data.moving_digits import uniform_draws

Record = TypeVar("Record")


class ClipNumber(NamedTuple):
    """Which clip: a split, the non-negative seed of its orders, and a non-negative number."""

    split: str
    seed: int
    number: int


def check_folder(folder: str, num_train: int, max_bad_share: float) -> None:
    """Refuse a folder that cannot be trained on.

    Args:
        folder: for the message.
        num_train: its training clips.
        max_bad_share: share of unreadable clips that a run survives.

    Raises:
        ValueError: without a training clip, or for a share outside [0, 1].
    """
    if not 0 <= max_bad_share <= 1:
        raise ValueError(f"data.max_bad_share={max_bad_share} must lie in [0, 1]")
    if num_train < 1:
        raise ValueError(f"data.folder={folder!r} holds no training clip")


def check_flip(horizontal_flip: bool, is_pixels: bool) -> None:
    """Raise ValueError when clips are to be mirrored that cannot be."""
    if horizontal_flip and not is_pixels:
        raise ValueError(
            "data.horizontal_flip must be False: the folder holds no pixels, and a mirrored "
            "latent is not the latent of the mirrored clip"
        )


@functools.lru_cache(maxsize=8)
def epoch_order(seed: int, split: str, epoch: int, num_clips: int) -> NDArray[np.int64]:
    """Return the order of an epoch: ranks of Philox's raw bits, which numpy promises to keep.

    Args:
        seed: 0 or more.
        split: a member of `SPLITS`.
        epoch: from 0.
        num_clips: n, clips of the split.

    Returns:
        A permutation of 0 to n - 1, a pure function of the arguments.
    """
    sequence = np.random.SeedSequence((seed, SPLITS.index(split), epoch, num_clips))
    return np.argsort(np.random.Philox(sequence).random_raw(num_clips), kind="stable")


def is_flipped(clip: ClipNumber) -> bool:
    """Whether a clip is mirrored: a random half of the training clips."""
    split, seed, index = clip
    return bool(split == "train" and uniform_draws(seed, split, index, 1)[0] < 0.5)


def draw_caption(clip: ClipNumber, num_captions: int) -> int:
    """Return which of its captions a clip shows.

    Args:
        clip: which; its number grows with the step, so that each epoch draws anew.
        num_captions: captions that it has, 1 or more.

    Returns:
        A number below `num_captions`, equally likely each, a pure function of the arguments; 0 for
        the test split, so that evaluations agree.
    """
    split, seed, index = clip
    if split != "train" or num_captions == 1:
        return 0
    draw = uniform_draws(seed, split, index, 2)[1]  # the first one is that of the flip
    return int(draw * num_captions)


def to_network(video: NDArray, is_mirrored: bool) -> NDArray[np.float32]:
    """Return uint8 pixels as numbers in [-1, 1], latents as they are, [f, h, w, c]."""
    if video.dtype == np.uint8:
        video = video.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
    return np.ascontiguousarray(video[:, :, ::-1] if is_mirrored else video, np.float32)


class RecordReader:
    """Reads in shuffled order around damaged records; counts each once, over all threads."""

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

    def read(
        self,
        clip: ClipNumber,
        num_clips: int,
        read_record: Callable[[int], Record],
        errors: tuple[type[Exception], ...],
    ) -> Record:
        """Return the record of a clip, or the next one of its epoch that can be read.

        Args:
            clip: which.
            num_clips: clips of its split.
            read_record: the record at a place of the split.
            errors: what it raises when it cannot be read.

        Raises:
            ValueError: for an unknown split, one without clips, or a negative seed or index.
            TooManyBadClipsError: when too many cannot be read.
        """
        split, seed, index = clip
        if split not in SPLITS or not num_clips:
            raise ValueError(f"split is {split!r}; data.folder has no such clips")
        if seed < 0 or index < 0:
            raise ValueError(f"seed and index are {seed} and {index}; allowed: 0, 1, ...")
        epoch, start = divmod(index, num_clips)
        order = epoch_order(seed, split, epoch, num_clips)
        for rank in range(start, start + num_clips):
            place = int(order[rank % num_clips])
            try:
                return read_record(place)
            except errors as error:
                self._add(split, place, num_clips, error)
        raise TooManyBadClipsError(f"no record of split {split} can be read")

    def _add(self, split: str, place: int, num_clips: int, error: Exception) -> None:
        with self._lock:
            if (split, place) in self._seen:
                return
            self._seen.add((split, place))
            count = sum(s == split for s, _ in self._seen)
        reason = first_line_of(error)[:200]
        logging.warning("record %d of split %s is skipped: %s", place, split, reason)
        if count > self._max_share * num_clips:
            raise TooManyBadClipsError(
                f"{count} of {num_clips} records of split {split} cannot be read, more than "
                f"data.max_bad_share={self._max_share}; the last: {reason}"
            )


def refuse_captions(captions: Sequence[str]) -> NDArray[np.int32]:
    """Refuse captions: without text embeddings in the records, nothing was trained on them.

    Raises:
        ValueError: always.
    """
    del captions
    raise ValueError("--caption: the run was trained without captions; leave it out")
