"""A sample of a run's own training clips, measured before anything is compiled."""

import math
from collections.abc import Callable, Iterator

from tpdiff_jax.advice.clip_spectrum import ClipSpectrum, measure_spectrum
from tpdiff_jax.checks import naming
from tpdiff_jax.data import Dataset
from tpdiff_jax.types import FloatArray

MOST_CLIPS, FEWEST_CLIPS = 192, 16
MOST_NUMBERS = 120_000_000
"""Of all clips that are measured together: about ten seconds of one core."""


def clips_to_measure(dataset: Dataset) -> tuple[str, int]:
    """Which clips a data set is judged by.

    Args:
        dataset: clips of one shape.

    Returns:
        The split ("test" where nothing else is there) and the number of its first clips.
    """
    split = "train" if dataset.num_clips("train") else "test"
    size = dataset.num_frames * math.prod(dataset.frame_shape)
    count = min(MOST_CLIPS, max(FEWEST_CLIPS, MOST_NUMBERS // size))
    return split, min(count, dataset.num_clips(split))


def measure_clips(
    dataset: Dataset, seed: int, on_clip: Callable[[int], None] | None = None
) -> ClipSpectrum:
    """Measure the first training clips of a seed; a pure function of data set and seed.

    Args:
        dataset: clips of one shape.
        seed: of the order in which clips are drawn, as training has it.
        on_clip: told how many clips are done.

    Returns:
        Their spectrum.

    Raises:
        ValueError: for clips of one frame, or that cannot be read or do not vary.
    """
    if dataset.num_frames < 2:
        raise ValueError(
            "data.num_frames is 1: a single frame has no redundancy over time; allowed: at least 2"
        )
    split, count = clips_to_measure(dataset)

    def videos() -> Iterator[FloatArray]:
        for index in range(count):
            yield dataset.clip(split, seed, index)["video"]
            if on_clip:
                on_clip(index + 1)

    with naming("data"):
        return measure_spectrum(videos())
