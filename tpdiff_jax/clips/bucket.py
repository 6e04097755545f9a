"""The shape of clips of one bucket."""

import re
from typing import NamedTuple

_TEXT = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})x([1-9]\d{0,5})")


class Bucket(NamedTuple):
    """A shape of clips: frames, and pixels of a frame."""

    num_frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


def parse_bucket(text: str) -> Bucket:
    """Read frames x height x width, as in 16x96x160.

    Raises:
        ValueError: for any other text.
    """
    match = _TEXT.fullmatch(text)
    if not match:
        raise ValueError(
            f"{text!r} is no bucket; allowed: frames x height x width, as in 16x96x160"
        )
    return Bucket(*map(int, match.groups()))
