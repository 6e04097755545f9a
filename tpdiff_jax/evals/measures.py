"""What an evaluation is: figures of generated videos beside a ceiling and floors.

Two families in the room `measures` do it: `DigitMeasures` by the exact physics of Moving Digits,
`ClipMeasures` by distances to held-out clips. Each describes its figures in one table,
`DIGIT_METRICS` and `CLIP_METRICS`, and puts real and spoilt clips through the same code.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict

import numpy as np


class Metric(NamedTuple):
    """How to read one figure.

    Attributes:
        name: as it stands in results.json.
        direction: "higher" or "lower" is better; "match": best where it equals the ceiling.
        unit: of the figure; "1" where it has none, "share" in [0, 1].
        meaning: in a few words.
    """

    name: str
    direction: str
    unit: str
    meaning: str


class Evaluation(TypedDict):
    """Figures as results.json holds them; every float in the unit that its `Metric` names.

    Attributes:
        metrics: figures of the generated videos by name.
        references: the same figures of other sets: "ceiling" of real clips, "frozen" at their
            first frame and "shuffled" in time as floors.
        metric_info: fields of the `Metric` of every figure.
        measurement: what has to be equal for two evaluations to be comparable, where the figures
            do not say it themselves.
        notes: what a reader has to know about the figures, such as sets that are too small.
    """

    metrics: Mapping[str, float]
    references: Mapping[str, Mapping[str, float]]
    metric_info: Mapping[str, Mapping[str, str]]
    measurement: NotRequired[Mapping[str, Any]]
    notes: NotRequired[Sequence[str]]


class Measures(Protocol):
    """Measures sets of generated videos, all of them against the same real clips."""

    @property
    def is_possible(self) -> bool:
        """Whether there is anything to compare with, of a size that can be measured.

        Only then are the methods called; a run that cannot be measured ends without figures.
        """
        ...

    @property
    def num_videos(self) -> int:
        """Videos of a set, n."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the figures has to know, as sentences; why there are none, if so."""
        ...

    def conditions(self) -> Mapping[str, np.ndarray]:
        """Return what the videos are to be generated from: entries of a condition, [n, ...]."""
        ...

    def __call__(self, videos: np.ndarray) -> Evaluation:
        """Measure one set.

        Args:
            videos: generated from `conditions`, in their order, float32 [n, f, h, w, c], pixels in
                about [-1, 1] or latents.

        Returns:
            Figures, finite unless the videos are not; references are computed once.

        Raises:
            ValueError: for a set of another size, or clips too short to be measured.
        """
        ...
