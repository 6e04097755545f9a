"""Figures of Moving Digits by their exact physics: the measures of `digits/figures.py`.

Videos are asked for labels that go through all classes evenly and compared with as many real test
clips; as many others of the test split are the references.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tpdiff_jax.data import Dataset, stack_clips
from tpdiff_jax.digits.digit_physics import DigitWorld
from tpdiff_jax.digits.figures import (
    DIGIT_METRICS,
    MIN_DIGIT_FRAMES,
    evaluate_videos,
    reference_figures,
)
from tpdiff_jax.evals.measures import Evaluation
from tpdiff_jax.measures.compared_sets import one_video


class RealClips(NamedTuple):
    """Real test clips to compare with, float32 [n, f, h, w, 1], and the figures of others."""

    videos: np.ndarray
    references: dict[str, dict[str, float]]


class DigitMeasures:
    """Measures sets of videos by the geometry that real clips obey; see `evals.Measures`."""

    def __init__(self, dataset: Dataset, world: DigitWorld, num_videos: int, seed: int) -> None:
        """Prepare; real clips are measured when they are first needed.

        Args:
            dataset: Moving Digits.
            world: their geometry.
            num_videos: n, size of every set; nothing is measured of fewer than 2.
            seed: of the real clips.
        """
        self._dataset, self._world = dataset, world
        self._num_videos, self._seed = num_videos, seed

    @property
    def is_possible(self) -> bool:
        """Whether there are videos enough, of frames enough; real clips are drawn on demand."""
        return not self.notes

    @property
    def num_videos(self) -> int:
        """Videos of every set."""
        return self._num_videos

    @property
    def notes(self) -> Sequence[str]:
        """Why nothing is measured; else none: real clips are as many as needed, and exact."""
        if self._num_videos < 2:
            return [one_video(self._num_videos)]
        if (frames := self._dataset.num_frames) < MIN_DIGIT_FRAMES:
            return [
                f"nothing is measured: data.num_frames={frames}, and motion needs "
                f"{MIN_DIGIT_FRAMES} frames"
            ]
        return ()

    def conditions(self) -> Mapping[str, np.ndarray]:
        """Return labels that go through all classes evenly, int32 [n, num_digits]."""
        return self._dataset.requests(self._num_videos).cond

    def __call__(self, videos: np.ndarray) -> Evaluation:
        """Return the figures of generated videos and the references.

        Args:
            videos: generated from `conditions`, in their order, [n, f, h, w, 1] in about [-1, 1].

        Raises:
            ValueError: for sets of unequal size, clips under three frames, or shapes that are not
                the world's.
        """
        real, labels = self._real, self.conditions()["label"]
        metrics = evaluate_videos(videos, labels, real_videos=real.videos, world=self._world)
        return {
            "metrics": metrics,
            "references": real.references,
            "metric_info": {metric.name: metric._asdict() for metric in DIGIT_METRICS},
        }

    @functools.cached_property
    def _real(self) -> RealClips:
        n = self._num_videos
        clips = stack_clips(self._dataset, "test", self._seed, 2 * n)
        references = reference_figures(
            clips["video"][:n], clips["video"][n:], clips["label"][n:], world=self._world
        )
        return RealClips(clips["video"][:n], references)
