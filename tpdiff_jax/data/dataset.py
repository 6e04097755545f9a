"""What a data set is to the rest of the package: three protocols, each part of the next.

    ClipFacts       shapes and numbers alone: all that compiling asks (`clip_shape.ClipShape`)
    NumberedClips   clips by number: all that the input pipeline asks (`buckets.BucketedClips`)
    Dataset         both, and what evaluation and sampling ask: every entry of `DATASETS`

Axes: f frames, h w c of a frame, n clips or videos. Lengths are counts, `fps` is frames a second.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.data.requests import Requests
from tpdiff_jax.digits.digit_physics import DigitWorld
from tpdiff_jax.types import CondShapes

Clip: TypeAlias = Mapping[str, Any]
"""One clip by field: "video", float32 [f, h, w, c], pixels in [-1, 1] or latents; an array for
each field of its condition; texts such as "caption" and "name" where there are any."""

ENDLESS = sys.maxsize
"""Number of clips of a split whose clips are drawn on demand and never repeat."""


class ClipFacts(Protocol):
    """Shapes and numbers of clips, at hand or not."""

    @property
    def num_frames(self) -> int:
        """Frames of a clip, f >= 1."""
        ...

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of a frame, three positive numbers."""
        ...

    @property
    def num_digits(self) -> int:
        """Numbers in a label; 0 where clips have none."""
        ...

    @property
    def num_classes(self) -> int:
        """Values of each number of a label, 0 to num_classes - 1; 0 where clips have none."""
        ...

    @property
    def cond_shapes(self) -> CondShapes:
        """The fields of a clip that are its condition.

        Always "label", int32 (num_digits,); further ones where an encoder has stored text.
        """
        ...

    @property
    def null_cond(self) -> Mapping[str, np.ndarray]:
        """The empty prompt as its encoder sees it, by field of the condition.

        Without an axis of clips, of the shapes of `cond_shapes`; {} where clips have no encoded
        text, and then captions say nothing about what was trained.
        """
        ...


class NumberedClips(Protocol):
    """Clips by number."""

    @property
    def cond_shapes(self) -> CondShapes:
        """The fields of a clip that are its condition; see `ClipFacts`."""
        ...

    def clip(self, split: str, seed: int, index: int) -> Clip:
        """Return a clip, a pure function of its number: the same bytes on every host.

        Args:
            split: "train" or "test".
            seed: of the order and of everything drawn, 0 or more.
            index: number of the clip, 0 or more; past the last clip, the next epoch.

        Returns:
            "video" and the fields of `cond_shapes`, arrays without an axis of clips; more where
            the data set has more, such as "caption".

        Raises:
            ValueError: for an unknown split, one without clips, or a negative seed or index.
        """
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """Return named facts, as JSON holds them, that decide the bytes of every clip.

        Recorded with each checkpoint; a run goes on only on data of the same fingerprint.
        """
        ...


class Dataset(ClipFacts, NumberedClips, Protocol):
    """Clips of one shape, what is known about them, and what videos of them may be asked for."""

    def num_clips(self, split: str) -> int:
        """Return the clips of a split before an epoch ends; `ENDLESS` where none does.

        Args:
            split: "train" or "test".

        Returns:
            A count; 0 for a split that the data set does not have.
        """
        ...

    @property
    def is_pixels(self) -> bool:
        """Whether "video" holds pixels in [-1, 1]; latents otherwise."""
        ...

    @property
    def fps(self) -> float:
        """Frames a second, more than 0, of clips as shown; of the decoded ones for latents."""
        ...

    @property
    def encoders(self) -> Mapping[str, Mapping[str, Any]]:
        """What made clips of frames ("video") and of captions ("text"): facts of each.

        "name" is always there: "pixels" or "none" where there is no encoder.
        """
        ...

    @property
    def world(self) -> DigitWorld | None:
        """Geometry of Moving Digits, by which videos are measured exactly; None for other clips."""
        ...

    def requests(self, num_videos: int) -> Requests:
        """Return what sample videos are asked to show.

        Args:
            num_videos: n >= 1.

        Returns:
            Arrays [n, ...] for every field of `cond_shapes`, and n captions or none.
        """
        ...

    def captions_to_labels(self, captions: Sequence[str]) -> NDArray[np.int32]:
        """Read the labels that captions name.

        Args:
            captions: n texts.

        Returns:
            Labels, int32 [n, num_digits].

        Raises:
            ValueError: when a caption names no label, or clips have none.
        """
        ...
