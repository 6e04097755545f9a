"""The input pipeline: batch t is a pure function of (data set, split, seed, t), read through grain.

`clips_of_step(t)` says which clips of batch t this host renders: the rows that lie on its
devices. Threads and workers only change who renders a batch, never what it holds. Because the
position is the step itself, resuming is starting at `start_step`: there is no iterator state to
save.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from tpdiff_jax.data.dataset import NumberedClips

if TYPE_CHECKING:
    import grain

NUM_BATCHES = 2**40
"""Length of the stream, in batches: clips are drawn on demand and never repeat."""


class HostBatches:
    """Random-access source of one host's share of every batch."""

    def __init__(
        self,
        dataset: NumberedClips,
        split: str,
        seed: int,
        clips_of_step: Callable[[int], Sequence[int]],
    ) -> None:
        self._dataset, self._split, self._seed = dataset, split, seed
        self._clips_of_step = clips_of_step

    def __len__(self) -> int:
        return NUM_BATCHES

    def __getitem__(self, step: Any) -> dict[str, Any]:
        numbers = self._clips_of_step(int(step))
        clips = [self._dataset.clip(self._split, self._seed, number) for number in numbers]
        return {
            "video": np.stack([clip["video"] for clip in clips]),
            "cond": {
                name: np.stack([clip[name] for clip in clips]) for name in self._dataset.cond_shapes
            },
            "index": np.asarray(numbers, np.int64),
        }


def make_iterator(
    dataset: NumberedClips,
    split: str,
    seed: int,
    clips_of_step: Callable[[int], Sequence[int]],
    start_step: int = 0,
    num_threads: int = 2,
    num_workers: int = 0,
) -> "grain.DatasetIterator":
    """Iterate over this host's batches from step `start_step` on, without end.

    Args:
        dataset: clips by index.
        split: "train" or "test".
        seed: seed of the data set.
        clips_of_step: step -> numbers of the clips that this host renders for it, one or more;
            pure, and picklable where `num_workers` is used.
        start_step: first batch to yield; a run resumed after n steps passes n.
        num_threads: rendering threads; 0 renders in the caller's thread, without prefetch.
        num_workers: rendering processes; needs parsed absl flags. Threads suffice here.

    Returns:
        Iterator of {"video": float32 [b, f, h, w, c], "cond": the fields that the data set's
        `cond_shapes` names with an axis b in front, "index": int64 [b]}, b clips of this host, all
        numpy.

    Raises:
        ValueError: for a negative number, or workers without parsed flags.
    """
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
    import grain  # a second, for what trains alone

    source = HostBatches(dataset, split, seed, clips_of_step)
    batches = grain.MapDataset.source(source)[start_step:]
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=2 * num_threads if num_threads else 0
    )
    stream = batches.to_iter_dataset(options)
    if num_workers:
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    return iter(stream)


def stack_clips(
    dataset: NumberedClips, split: str, seed: int, count: int, start: int = 0
) -> dict[str, Any]:
    """Render clips `start` to `start + count - 1` and stack every field over a leading axis b.

    Args:
        dataset: clips by number.
        split: "train" or "test".
        seed: of the data set, 0 or more.
        count: clips, b >= 1.
        start: number of the first.

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
