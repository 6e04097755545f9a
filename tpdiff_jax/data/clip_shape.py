"""The shape of clips that are not at hand: all that compiling asks of a data set."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tpdiff_jax.data.dataset import Dataset
from tpdiff_jax.types import CondShapes


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
        ValueError: for no frames, or a frame shape that is not three positive numbers.
    """

    num_frames: int
    frame_shape: tuple[int, int, int]
    num_digits: int = 0
    num_classes: int = 0
    encoded: CondShapes = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"--frame_shape: the number of frames is {self.num_frames}, below 1")
        to_frame_shape(self.frame_shape)

    @property
    def cond_shapes(self) -> CondShapes:
        """Shape and dtype of a clip's condition."""
        return {"label": ((self.num_digits,), np.dtype(np.int32)), **self.encoded}

    @property
    def null_cond(self) -> Mapping[str, np.ndarray]:
        """No encoded prompt."""
        return {}


def to_frame_shape(numbers: Sequence[int]) -> tuple[int, int, int]:
    """Return (h, w, c) of a frame.

    Args:
        numbers: as given by `--frame_shape`.

    Raises:
        ValueError: unless they are three positive numbers.
    """
    if len(numbers) != 3 or min(numbers) < 1:
        raise ValueError(
            f"--frame_shape={tuple(numbers)} must be height, width and channels, such as "
            "48,80,16, perhaps with the number of frames before them"
        )
    height, width, channels = numbers
    return (height, width, channels)


def clips_at_hand(source: Dataset | ClipShape) -> Dataset:
    """Return a data set itself, where there is one.

    Raises:
        ValueError: for the shape of clips that are not at hand.
    """
    if isinstance(source, ClipShape):
        raise ValueError("there are no clips: --frame_shape only compiles programs (--mode=plan)")
    return source
