"""The input pipeline: batch t is a pure function of (data set, split, seed, t), read through grain.

Batch t holds the clips t*B to (t+1)*B - 1 in order. Host p of P reads the p-th contiguous slice
of every batch, so the hosts' slices laid end to end are the one-host batch, byte for byte.
Threads and workers only change who renders a clip, never which. Because the position is the step
itself, resuming is starting at `start_step`: there is no iterator state to save.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

NUM_BATCHES = 2**40
"""Length of the stream, in batches: clips are drawn on demand and never repeat."""


class VideoDataset(Protocol):
    """A data set as the pipeline sees it: clips by index."""

    def clip(self, split: str, seed: int, index: int) -> Mapping[str, Any]:
        """Clip `index`, with "video" [f, h, w, c] and "label" int32 [num_digits], purely."""
        ...


class HostSlice:
    """Random-access source of one host's clips, in the order in which its batches need them."""

    def __init__(
        self,
        dataset: VideoDataset,
        split: str,
        seed: int,
        batch_size: int,
        process_index: int,
        process_count: int,
    ) -> None:
        self._dataset, self._split, self._seed = dataset, split, seed
        self._batch_size = batch_size
        self._local_size = batch_size // process_count
        self._first = process_index * self._local_size

    def __len__(self) -> int:
        return NUM_BATCHES * self._local_size

    def __getitem__(self, position: Any) -> dict[str, Any]:
        step, row = divmod(int(position), self._local_size)
        index = step * self._batch_size + self._first + row
        clip = self._dataset.clip(self._split, self._seed, index)
        return {
            "video": clip["video"],
            "cond": {"label": clip["label"]},
            "index": np.int64(index),
        }


def make_iterator(
    dataset: VideoDataset,
    split: str,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    num_workers: int = 0,
) -> grain.DatasetIterator:
    """Iterate over this host's batches from step `start_step` on, without end.

    Args:
        dataset: clips by index.
        split: "train" or "test".
        seed: seed of the data set.
        batch_size: global batch size B, a multiple of `process_count`.
        start_step: first batch to yield; a run resumed after n steps passes n.
        process_index: this host, 0 to process_count - 1.
        process_count: number of hosts.
        num_threads: rendering threads; 0 renders in the caller's thread, without prefetch.
        num_workers: rendering processes; needs parsed absl flags. Threads suffice here.

    Returns:
        Iterator of {"video": float32 [b, f, h, w, c], "cond": {"label": int32 [b, num_digits]},
        "index": int64 [b]}, b = batch_size / process_count, all numpy.

    Raises:
        ValueError: for a batch size that the hosts do not divide, an index out of range, or
            workers without parsed flags.
    """
    if batch_size < 1 or process_count < 1 or batch_size % process_count:
        raise ValueError(
            f"train.batch_size is {batch_size}; allowed: positive multiples of the host count "
            f"{process_count}"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index is {process_index}; allowed: 0 to {process_count - 1}")
    for name, value in (
        ("start_step", start_step),
        ("data.num_threads", num_threads),
        ("num_workers", num_workers),
    ):
        if value < 0:
            raise ValueError(f"{name} is {value}; allowed: 0, 1, ...")
    if num_workers and not flags.FLAGS.is_parsed():
        raise ValueError(
            f"num_workers is {num_workers}, but worker processes need parsed absl flags "
            "(absl.app.run); allowed without them: 0"
        )
    source = HostSlice(dataset, split, seed, batch_size, process_index, process_count)
    batches = grain.MapDataset.source(source).batch(batch_size // process_count)[start_step:]
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=2 * num_threads if num_threads else 0
    )
    stream = batches.to_iter_dataset(options)
    if num_workers:
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    return iter(stream)


def stack_clips(
    dataset: VideoDataset, split: str, seed: int, count: int, start: int = 0
) -> dict[str, Any]:
    """Render clips `start` to `start + count - 1` and stack every field over a leading axis b.

    Returns:
        The fields of `dataset.clip`: arrays stacked to [b, ...], other values as lists.
    """
    clips = [dataset.clip(split, seed, index) for index in range(start, start + count)]
    return {
        name: np.stack([c[name] for c in clips])
        if isinstance(value, np.ndarray)
        else [c[name] for c in clips]
        for name, value in clips[0].items()
    }
