"""Moving Digits: handwritten digits that move at constant velocity and bounce inside the frame.

Clip (seed, split, index) is a pure function: five counter-based random numbers per digit choose
the glyph, speed, direction and start, and the physics module does the rest. Directions are
isotropic, speeds uniform over the stratum's bands, starts uniform between the walls, glyphs
uniform over the split's images. Digits pass through each other; where they overlap their ink adds
and is clipped at one, so mass is exactly conserved except in overlaps.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.data.dataset import ENDLESS
from tpdiff_jax.data.requests import Requests, cycle_labels, requests_of_labels
from tpdiff_jax.digits.digit_physics import (
    GLYPHS_SHA256,
    NUM_DIGIT_CLASSES,
    SPEED_BANDS,
    DigitWorld,
    bouncing_path,
    load_glyphs,
    quantised,
    splat,
)
from tpdiff_jax.preparation.clip_encoder import PIXELS
from tpdiff_jax.types import CondShapes, FloatArray

VERSION = "moving-digits-1"
"""Changes whenever the bytes of any clip change."""

SPLIT_NUMBERS = {"train": 0, "test": 1}
DRAWS_PER_DIGIT = 5
DIRECTIONS = (
    "right",
    "upper right",
    "top",
    "upper left",
    "left",
    "lower left",
    "bottom",
    "lower right",
)
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CAPTION_PATTERN = re.compile(rf"\bdigit\s+(\d+|{'|'.join(DIGIT_WORDS)})\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovingDigitsSpec:
    """What a clip looks like.

    Args:
        num_frames: frames per clip.
        frame_size: height and width in pixels.
        num_digits: digits per clip, 1 or 2.
        speed_stratum: "natural" (as redundant as real footage), "all", "slow", "fast", or
            "held_out" (test only); see `SPEED_BANDS`.
        digit_scale: integer enlargement of the 8x8 glyphs and of speeds; 0 means frame_size // 32,
            at least 1: one 8x8 digit at 32x32 and 16x16 digits at 64x64.

    Raises:
        ValueError: for a value outside these ranges.
    """

    num_frames: int = 16
    frame_size: int = 32
    num_digits: int = 1
    speed_stratum: str = "natural"
    digit_scale: int = 0
    captions: ClassVar[str] = ""  # of `Dataset`: labels alone, no text to count

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"data.num_frames is {self.num_frames}; allowed: 1, 2, ...")
        if self.digit_scale < 0:
            raise ValueError(f"data.digit_scale is {self.digit_scale}; allowed: 0, 1, 2, ...")
        _ = self.world

    @property
    def world(self) -> DigitWorld:
        """Walls and speeds, as the evaluators want them."""
        scale = self.digit_scale or max(1, self.frame_size // 32)
        return DigitWorld(
            frame_size=self.frame_size,
            num_digits=self.num_digits,
            digit_scale=scale,
            speed_stratum=self.speed_stratum,
        )

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one frame."""
        return (self.frame_size, self.frame_size, 1)

    @property
    def num_classes(self) -> int:
        """Number of labels; the network's null label is this number."""
        return NUM_DIGIT_CLASSES

    @property
    def cond_shapes(self) -> CondShapes:
        """Shape and dtype of a clip's condition, by the names of the clip's fields."""
        return {"label": ((self.num_digits,), np.dtype(np.int32))}

    @property
    def null_cond(self) -> Mapping[str, NDArray]:
        """No encoded prompt: labels have a null class, the network's."""
        return {}

    @property
    def encoders(self) -> Mapping[str, Mapping[str, Any]]:
        """What clips were made with: pixels, no text."""
        return PIXELS.facts

    @property
    def fps(self) -> float:
        """Frames per second at which clips are shown."""
        return 8.0

    @property
    def is_pixels(self) -> bool:
        """Clips are drawn as pixels."""
        return True

    def num_clips(self, split: str) -> int:
        """Clips are drawn on demand; training has none at held-out speeds."""
        is_there = split == "test" or (split == "train" and self.speed_stratum != "held_out")
        return ENDLESS if is_there else 0

    def requests(self, num_videos: int) -> Requests:
        """Labels that go through all classes evenly."""
        return requests_of_labels(cycle_labels(num_videos, self.num_digits, NUM_DIGIT_CLASSES))

    def clip(self, split: str, seed: int, index: int) -> dict[str, Any]:
        """Return clip `index`; see `draw_clip`.

        Args:
            split: "train" or "test": which glyphs.
            seed: non-negative seed.
            index: non-negative index of the clip.

        Returns:
            What `draw_clip` returns.

        Raises:
            ValueError: as `draw_clip`.
        """
        return draw_clip(self, split, seed, index)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the bytes of every clip: the drawing, the glyphs and the geometry."""
        fields = {**dataclasses.asdict(self), "digit_scale": self.world.digit_scale}
        return {"version": VERSION, "glyphs_sha256": GLYPHS_SHA256, **fields}

    def captions_to_labels(self, captions: Sequence[str]) -> NDArray[np.int32]:
        """Labels [n, num_digits] of captions; see `captions_to_labels`."""
        return captions_to_labels(captions, self.num_digits)


def uniform_draws(seed: int, split: str, index: int, count: int) -> FloatArray:
    """Uniform numbers in [0, 1) of one clip.

    Taken from Philox's raw bits, which numpy promises to keep, not from Generator's methods, whose
    streams may change with a numpy release.

    Args:
        seed: non-negative seed of the data set.
        split: "train" or "test".
        index: non-negative index of the clip.
        count: how many numbers.

    Returns:
        Multiples of 2^-53, [count].
    """
    sequence = np.random.SeedSequence((seed, SPLIT_NUMBERS[split], index))
    raw = np.random.Philox(sequence).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53


def draw_speeds(uniforms: FloatArray, stratum: str, scale: int) -> FloatArray:
    """Map uniforms to speeds in pixels per frame, uniform over the union of the stratum's bands.

    Args:
        uniforms: numbers in [0, 1), of any shape.
        stratum: a key of `SPEED_BANDS`.
        scale: factor on the table's speeds, that of the digits' size.

    Returns:
        Speeds, of the shape of `uniforms`.
    """
    bands = np.asarray(SPEED_BANDS[stratum])
    lengths = bands[:, 1] - bands[:, 0]
    ends = np.cumsum(lengths)
    measure = uniforms * ends[-1]
    band = np.minimum(np.searchsorted(ends, measure, side="right"), len(bands) - 1)
    return scale * (bands[band, 0] + measure - (ends[band] - lengths[band]))


def draw_clip(spec: MovingDigitsSpec, split: str, seed: int, index: int) -> dict[str, Any]:
    """Draw one clip, a pure function of its arguments.

    Args:
        spec: what a clip looks like.
        split: "train" or "test": which glyphs.
        seed: non-negative seed.
        index: non-negative index of the clip.

    Returns:
        video: float32 in [-1, 1], background -1, [f, h, w, 1].
        label: int32 [num_digits].
        caption: text.
        path: true centroid (y, x) of each digit in each frame, float64 [f, num_digits, 2].
        velocity: (y, x) in pixels per frame at frame 0, float64 [num_digits, 2].
        glyph: index of each glyph within its split, int64 [num_digits].

    Raises:
        ValueError: for an unknown split, a negative seed or index, or held-out speeds in training.
    """
    if split not in SPLIT_NUMBERS:
        raise ValueError(f"split is {split!r}; allowed: {', '.join(SPLIT_NUMBERS)}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index are {seed} and {index}; allowed: 0, 1, ...")
    if spec.speed_stratum == "held_out" and split == "train":
        raise ValueError(
            'data.speed_stratum "held_out" exists only in the test split; '
            "allowed in train: natural, all, slow, fast"
        )
    world, glyphs = spec.world, load_glyphs(split)
    count = spec.num_digits
    draws = uniform_draws(seed, split, index, DRAWS_PER_DIGIT * count)
    which, speeds, angles, rows, columns = draws.reshape(count, DRAWS_PER_DIGIT).T
    glyph = (which * len(glyphs.labels)).astype(np.int64)
    speed = draw_speeds(speeds, spec.speed_stratum, world.digit_scale)
    angle = 2.0 * np.pi * angles
    velocity = quantised(speed[:, None] * np.stack([-np.sin(angle), np.cos(angle)], axis=-1))
    start = quantised(world.low + world.span * np.stack([rows, columns], axis=-1))
    path = bouncing_path(start, velocity, spec.num_frames, world)  # [f, digits, 2]
    ink = np.zeros((spec.num_frames, spec.frame_size, spec.frame_size))
    for j in range(count):
        ink += splat(glyphs.images[glyph[j]], glyphs.centroids[glyph[j]], path[:, j], world)
    video = 2.0 * np.minimum(ink, 1.0) - 1.0
    label = glyphs.labels[glyph]
    return {
        "video": video[..., None].astype(np.float32),
        "label": label,
        "caption": caption(label, velocity / world.digit_scale),
        "path": path,
        "velocity": velocity,
        "glyph": glyph,
    }


def caption(labels: Sequence[int] | NDArray[np.int32], velocities: FloatArray) -> str:
    """Describe a clip, for instance "the digit 3 moves fast to the upper right".

    Args:
        labels: digit classes, [num_digits].
        velocities: (y, x) at frame 0 at digit scale 1, [num_digits, 2].

    Returns:
        One phrase per digit, joined by "and".
    """
    phrases = []
    for label, (down, right) in zip(labels, velocities, strict=True):
        octant = round(float(np.arctan2(-down, right)) / (np.pi / 4)) % 8
        speed = float(np.hypot(down, right))
        slow_end, fast_start = SPEED_BANDS["slow"][0][1], SPEED_BANDS["fast"][0][0]
        pace = "slowly" if speed < slow_end else "at medium speed"
        pace = "fast" if speed >= fast_start else pace
        phrases.append(f"the digit {int(label)} moves {pace} to the {DIRECTIONS[octant]}")
    return " and ".join(phrases)


def captions_to_labels(captions: Sequence[str], num_digits: int) -> NDArray[np.int32]:
    """Read the digits out of captions: each mention "digit N", N as 0 to 9 or as a word.

    Args:
        captions: texts such as "the digit 3 moves fast to the left and the digit seven ...".
        num_digits: how many digits each caption must name.

    Returns:
        Labels in order of mention, int32 [n, num_digits].

    Raises:
        ValueError: if a caption does not name exactly `num_digits` digits from 0 to 9.
    """
    rows = []
    for text in captions:
        found = CAPTION_PATTERN.findall(text.lower())
        row = [DIGIT_WORDS.index(w) if w in DIGIT_WORDS else int(w) for w in found]
        if len(row) != num_digits or any(label >= NUM_DIGIT_CLASSES for label in row):
            raise ValueError(
                f'caption {text[:200]!r} must name {num_digits} digit(s) from 0 to 9 as "digit N", '
                'for instance "the digit 3 moves fast to the upper right"'
            )
        rows.append(row)
    return np.asarray(rows, np.int32).reshape(len(rows), num_digits)
