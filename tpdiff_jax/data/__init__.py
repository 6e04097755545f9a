"""Data sets, by name. A new one is one new file with a `VideoDataset` and one line here.

A data set is built from keyword arguments and offers `clip(split, seed, index)`, `cond_shapes` and
`fingerprint()` (see `pipeline.VideoDataset`), `num_frames`, `frame_shape`, `fps`, `num_classes`,
`num_digits`, `captions_to_labels`, `requests(num_videos)` (what sample videos are asked to show),
`null_cond` (the encoded empty prompt, where clips have text), `encoders` (what made clips of
frames and captions), and `world`, the geometry that the
exact evaluators need, or None. Its clips have one shape; `bucket_folders` and `BucketedClips` are
for clips of several.
"""

from collections.abc import Callable
from typing import Any

from tpdiff_jax.data.buckets import BucketedClips, bucket_folders
from tpdiff_jax.data.clip_shape import ClipShape
from tpdiff_jax.data.moving_digits import MovingDigitsSpec
from tpdiff_jax.data.pipeline import VideoDataset, make_iterator, stack_clips
from tpdiff_jax.data.requests import Requests, requests_of_labels
from tpdiff_jax.data.tfds_folder import TfdsFolderSpec
from tpdiff_jax.data.video_records import VideoRecordsSpec

DATASETS: dict[str, Callable[..., Any]] = {
    "moving_digits": MovingDigitsSpec,
    "video_records": VideoRecordsSpec,
    "tfds_folder": TfdsFolderSpec,
}

__all__ = [
    "DATASETS",
    "BucketedClips",
    "ClipShape",
    "MovingDigitsSpec",
    "Requests",
    "TfdsFolderSpec",
    "VideoDataset",
    "VideoRecordsSpec",
    "bucket_folders",
    "make_iterator",
    "requests_of_labels",
    "stack_clips",
]
