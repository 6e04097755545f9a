"""Clips of several shapes: which folder each bucket has, and all of them as one data set.

Numbers of clips go round the buckets: number n is clip n // B of bucket n % B. Who asks for a
batch of one shape asks for numbers of one bucket.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from tpdiff_jax.clips.record_manifest import CLIP_MANIFEST_FILE, read_clip_manifest
from tpdiff_jax.data.dataset import Clip, NumberedClips
from tpdiff_jax.types import CondShapes


def bucket_folders(folder: str) -> dict[str, str]:
    """Return the folder of each bucket by name; one named "" where all clips have one shape.

    Raises:
        ValueError: when the folder has buckets of which one is not what it was.
    """
    path = pathlib.Path(folder)
    names = read_clip_manifest(path).buckets if (path / CLIP_MANIFEST_FILE).is_file() else {}
    return {name: str(path / name) for name in names} or {"": folder}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BucketedClips:
    """Data sets of one shape each, by the name of their bucket, as one of all clips."""

    buckets: Mapping[str, NumberedClips]

    @property
    def cond_shapes(self) -> CondShapes:
        """Shape and dtype of a clip's condition: the same in every bucket."""
        return next(iter(self.buckets.values())).cond_shapes

    def clip(self, split: str, seed: int, index: int) -> Clip:
        """Return the clip of that number: buckets take turns, see the module.

        Args:
            split: "train" or "test".
            seed: of the order and of everything drawn, 0 or more.
            index: of B buckets it is clip index // B of bucket index % B.

        Returns:
            What that bucket's data set returns.

        Raises:
            ValueError: as that data set.
        """
        number, bucket = divmod(index, len(self.buckets))
        return list(self.buckets.values())[bucket].clip(split, seed, number)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the bytes of every clip of every bucket."""
        return {
            f"{name}.{fact}" if name else fact: value
            for name, dataset in self.buckets.items()
            for fact, value in dataset.fingerprint().items()
        }
