"""What videos are asked for: the conditions, and how people call them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Requests(NamedTuple):
    """Conditions of videos to generate.

    Attributes:
        cond: entries of a clip's condition by name, [n, ...] each.
        captions: what each video is to show, such as "label 7" or a sentence; empty where nothing
            is asked for.
    """

    cond: Mapping[str, np.ndarray]
    captions: Sequence[str]

    @property
    def num_videos(self) -> int:
        """Number of videos, n."""
        return len(next(iter(self.cond.values())))

    def repeated_to(self, num_videos: int) -> "Requests":
        """Return `num_videos` requests: these, again from the start or cut."""
        return self.take(np.arange(num_videos) % self.num_videos)

    def take(self, rows: np.ndarray) -> "Requests":
        """Return the requests of these rows."""
        return Requests(
            {name: array[rows] for name, array in self.cond.items()},
            [self.captions[int(row)] for row in rows] if self.captions else [],
        )


def requests_of_labels(labels: np.ndarray) -> Requests:
    """Return requests for labels, int32 [n, num_digits]; without digits nothing is asked for."""
    captions = ["label " + "-".join(map(str, row)) for row in labels] if labels.shape[1] else []
    return Requests({"label": labels}, captions)


def cycle_labels(num_videos: int, num_digits: int, num_classes: int) -> np.ndarray:
    """Return labels that go through all classes evenly.

    Args:
        num_videos: labels wanted.
        num_digits: numbers of each.
        num_classes: values of each number.

    Returns:
        int32 [num_videos, num_digits], numbers in [0, num_classes).
    """
    j = np.arange(num_videos)
    labels = np.zeros((num_videos, num_digits), np.int32)
    for k in range(num_digits):
        labels[:, k] = (j // num_classes**k + j * (k > 0)) % num_classes
    return labels
