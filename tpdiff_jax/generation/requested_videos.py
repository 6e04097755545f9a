"""What was asked for, as the network generates it, batch by batch; for files and for Python."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.generation.prompts import SampleFlags, read_requests
from tpdiff_jax.generation.sampler import Sampler


class RequestedVideos(NamedTuple):
    """Videos that are still to be made.

    Attributes:
        captions: of every video; "" where the data set has none.
        batch_size: videos made at once; the last batch may have fewer.
        make: number of a batch's first video -> its videos as the network makes them, up to
            [batch_size, f, h, w, c].
    """

    captions: list[str]
    batch_size: int
    make: Callable[[int], np.ndarray]

    @property
    def starts(self) -> range:
        """Numbers of the first videos of all batches."""
        return range(0, len(self.captions), self.batch_size)

    def batches(self) -> Iterator[tuple[np.ndarray, Sequence[str]]]:
        """Make all videos, batch by batch, with their captions."""
        for start in self.starts:
            yield self.make(start), self.captions[start : start + self.batch_size]


def request_videos(
    run: OpenedRun,
    flags: SampleFlags,
    *,
    num_videos: int | None,
    seed: int,
    sampler: Sampler | None = None,
) -> RequestedVideos:
    """Read what is asked for; nothing is compiled or sampled before the first batch is made.

    Args:
        run: the opened checkpoint.
        flags: what to show.
        num_videos: how many; None takes the config's number.
        seed: video j depends on (seed, j, its request) and nothing else.
        sampler: of the run, kept from earlier requests so that nothing compiles again; one with a
            negative prompt needs its own.

    Raises:
        ValueError: when an entry does not fit the data set.
    """
    experiment, spec = run.experiment, run.experiment.sample
    number = spec.num_videos if num_videos is None else num_videos
    requests, rows, null_cond = read_requests(
        experiment, flags, number, is_number_given=num_videos is not None
    )
    size = spec.batch_size

    @functools.cache
    def chosen() -> Sampler:
        if sampler is not None and null_cond is None:
            return sampler
        return Sampler(experiment, null_cond=null_cond)

    def make(start: int) -> np.ndarray:
        part = requests.take(rows[start : start + size])
        return chosen()(run.params, part.cond, seed=seed, batch_size=size, first=start)

    captions = requests.captions
    return RequestedVideos([captions[i] if captions else "" for i in rows], size, make)
