"""Data sets, by name. A new one is one new file with a `VideoDataset` and one line here.

A data set is built from keyword arguments and offers `clip(split, seed, index)` (see
`pipeline.VideoDataset`), `fingerprint()`, `num_frames`, `frame_shape`, `num_classes`, `num_digits`
and `captions_to_labels`.
"""

from collections.abc import Callable
from typing import Any

from tpdiff_jax.data.clip_shape import ClipShape
from tpdiff_jax.data.moving_digits import MovingDigitsSpec
from tpdiff_jax.data.pipeline import VideoDataset, make_iterator, stack_clips

DATASETS: dict[str, Callable[..., Any]] = {"moving_digits": MovingDigitsSpec}

__all__ = [
    "DATASETS",
    "ClipShape",
    "MovingDigitsSpec",
    "VideoDataset",
    "make_iterator",
    "stack_clips",
]
