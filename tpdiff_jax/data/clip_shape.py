"""The shape of clips that are not at hand: all that compiling asks of a data set."""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipShape:
    """Stands in for a data set where a program is compiled and never run.

    Attributes:
        num_frames: frames of a clip.
        frame_shape: (h, w, c) of a frame.
        num_digits: numbers in a label.
        num_classes: values of each.
        encoded: shape and dtype of further entries of the condition.

    Raises:
        ValueError: for a frame shape that is not three positive numbers.
    """

    num_frames: int
    frame_shape: tuple[int, ...]
    num_digits: int = 0
    num_classes: int = 0
    encoded: Mapping[str, tuple[tuple[int, ...], np.dtype]] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        if len(self.frame_shape) != 3 or min(self.num_frames, *self.frame_shape) < 1:
            raise ValueError(
                f"--frame_shape={self.frame_shape} must be height, width and channels, such as "
                "48,80,16, perhaps with the number of frames before them"
            )

    @property
    def cond_shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of a clip's condition."""
        return {"label": ((self.num_digits,), np.dtype(np.int32)), **self.encoded}

    @property
    def null_cond(self) -> Mapping[str, np.ndarray]:
        """No encoded prompt."""
        return {}
