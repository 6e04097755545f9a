"""What was asked for, as the network generates it, batch by batch; for files and for Python."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.generation.prompts import SampleFlags, read_requests
from tpdiff_jax.generation.sampler import Sampler


class RequestedVideos(NamedTuple):
    """Videos that are still to be made.

    Attributes:
        captions: of every video; empty where the data set has none.
        batches: makes them: videos as the network does, [n, f, h, w, c], and their captions.
    """

    captions: list[str]
    batches: Callable[[], Iterator[tuple[np.ndarray, Sequence[str]]]]


def request_videos(
    run: OpenedRun, flags: SampleFlags, *, num_videos: int | None, seed: int
) -> RequestedVideos:
    """Read what is asked for; nothing is compiled or sampled before `batches` is called.

    Args:
        run: the opened checkpoint.
        flags: what to show.
        num_videos: how many; None takes the config's number.
        seed: video j depends on (seed, j, its request) and nothing else.

    Raises:
        ValueError: when an entry does not fit the data set.
    """
    experiment, spec = run.experiment, run.experiment.sample
    number = spec.num_videos if num_videos is None else num_videos
    requests, rows, null_cond = read_requests(
        experiment, flags, number, is_number_given=num_videos is not None
    )

    def batches() -> Iterator[tuple[np.ndarray, Sequence[str]]]:
        sampler, size = Sampler(experiment, null_cond=null_cond), spec.batch_size
        for start in range(0, len(rows), size):
            part = requests.take(rows[start : start + size])
            yield (
                sampler(run.params, part.cond, seed=seed, batch_size=size, first=start),
                part.captions,
            )

    captions = requests.captions
    return RequestedVideos([captions[i] if captions else "" for i in rows], batches)
