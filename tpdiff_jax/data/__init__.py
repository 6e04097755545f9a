"""Data sets, by name. A new one is one new file with a `Dataset` and one line here.

A data set is built from keyword arguments and has the members of `dataset.Dataset`. Its clips have
one shape; `bucket_folders` and `BucketedClips` are for clips of several, and `ClipShape` for none.
"""

from collections.abc import Callable

from tpdiff_jax.data.buckets import BucketedClips, bucket_folders
from tpdiff_jax.data.clip_shape import ClipShape, clips_at_hand, to_frame_shape
from tpdiff_jax.data.dataset import ENDLESS, ClipFacts, Dataset, NumberedClips
from tpdiff_jax.data.moving_digits import MovingDigitsSpec
from tpdiff_jax.data.pipeline import make_iterator, stack_clips
from tpdiff_jax.data.recorded_clips import RecordedClips, read_recorded_clips, record_clips
from tpdiff_jax.data.requests import Requests, requests_of_labels
from tpdiff_jax.data.tfds_folder import TfdsFolderSpec
from tpdiff_jax.data.video_records import VideoRecordsSpec

DATASETS: dict[str, Callable[..., Dataset]] = {
    "moving_digits": MovingDigitsSpec,
    "video_records": VideoRecordsSpec,
    "tfds_folder": TfdsFolderSpec,
}

__all__ = [
    "DATASETS",
    "ENDLESS",
    "BucketedClips",
    "ClipFacts",
    "ClipShape",
    "Dataset",
    "MovingDigitsSpec",
    "NumberedClips",
    "RecordedClips",
    "Requests",
    "TfdsFolderSpec",
    "VideoRecordsSpec",
    "bucket_folders",
    "clips_at_hand",
    "make_iterator",
    "read_recorded_clips",
    "record_clips",
    "requests_of_labels",
    "stack_clips",
    "to_frame_shape",
]
