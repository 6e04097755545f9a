"""The world of Moving Digits: glyphs, walls, speeds, the bouncing law and the drawing kernel.

Stands below both the data set, which draws this world, and the evaluators, which measure it.

A digit is a point, the ink centroid of its glyph, that moves at constant velocity between two
walls per axis and bounces elastically. Walls hold for the centroid and are the same for every
glyph, so the law can be checked on a generated video whose glyph nobody knows:

    c(t) = low + reflect(c(0) - low + v t),    reflect: the triangle wave of period 2 (high - low)

Drawing is bilinear splatting: ink at position p gives pixel r the weight max(0, 1 - |r - p|) along
each axis. These weights sum to one and their mean is p, so mass and centroid are exact.

Every drawn quantity is a multiple of 2^-16, glyph ink a multiple of 1/16: all products and sums
are exact in float64, and the bytes of a clip depend neither on BLAS nor on the order of summation.

Coordinates are (y, x) in pixels, pixel centres at integers, y pointing down.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import pathlib
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpdiff_jax.types import FloatArray

NUM_DIGIT_CLASSES = 10
GLYPH_SIZE = 8
NUM_TRAIN_GLYPHS = 1437
"""Contiguous split: neighbours in the source share writers, so a random split leaks them."""
GLYPHS_SHA256 = "fe61bc84cd6a594d5ed1b937b7d8f8f791d4091d2a9df91fe5d6066156a4db6e"
GLYPH_REACH = 4.75
"""No ink pixel of any glyph lies further than this from its centroid along an axis (max 4.671)."""

SPEED_BANDS: dict[str, tuple[tuple[float, float], ...]] = {
    "natural": ((0.15, 0.55),),
    "all": ((0.5, 1.5), (2.0, 3.0)),
    "slow": ((0.5, 1.5),),
    "fast": ((2.0, 3.0),),
    "held_out": ((1.5, 2.0),),
}
"""Speeds in pixels per frame at digit scale 1. "natural" has the redundancy between frames of real
footage at 25 frames a second; the others are stress tests of a temporal pyramid. From 2 on, one
coarse frame of stride 4 moves the digit by its own width or more. The band 1.5 to 2 is never in
training."""
WRONG_SPEED = 3.0
"""What a digit that is not there is wrong by, in pixels per frame at digit scale 1: the largest
speed of all strata, so that an empty video is never better than a bad one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitWorld:
    """Geometry of one tier.

    Args:
        frame_size: height and width of a frame in pixels.
        num_digits: digits per clip, 1 or 2.
        digit_scale: integer enlargement of the 8x8 glyphs; lengths and speeds scale with it.
        speed_stratum: key of `SPEED_BANDS`: which speeds are legal, from its least to its largest.
    """

    frame_size: int = 32
    num_digits: int = 1
    digit_scale: int = 1
    speed_stratum: str = "natural"

    def __post_init__(self) -> None:
        if self.num_digits not in (1, 2):
            raise ValueError(f"data.num_digits is {self.num_digits}; allowed: 1, 2")
        if self.speed_stratum not in SPEED_BANDS:
            raise ValueError(
                f"data.speed_stratum is {self.speed_stratum!r}; allowed: {', '.join(SPEED_BANDS)}"
            )
        if self.digit_scale < 1:
            raise ValueError(f"data.digit_scale is {self.digit_scale}; allowed: 1, 2, ...")
        if self.frame_size < 16 * self.digit_scale:
            raise ValueError(
                f"data.frame_size is {self.frame_size}; allowed: at least {16 * self.digit_scale}"
                f" at data.digit_scale {self.digit_scale}"
            )

    @property
    def low(self) -> float:
        """Lower wall of the centroid along either axis."""
        return GLYPH_REACH * self.digit_scale + 0.5 * (self.digit_scale - 1)

    @property
    def high(self) -> float:
        """Upper wall of the centroid along either axis."""
        return self.frame_size - 1 - self.low

    @property
    def span(self) -> float:
        """Distance between the walls."""
        return self.high - self.low

    @property
    def min_speed(self) -> float:
        """Smallest legal speed, pixels per frame."""
        return SPEED_BANDS[self.speed_stratum][0][0] * self.digit_scale

    @property
    def max_speed(self) -> float:
        """Largest legal speed, pixels per frame."""
        return SPEED_BANDS[self.speed_stratum][-1][1] * self.digit_scale

    @property
    def wrong_speed(self) -> float:
        """What a digit that is not there is wrong by, pixels per frame."""
        return WRONG_SPEED * self.digit_scale


class Glyphs(NamedTuple):
    """Digit images of one split: images [m, 8, 8] in [0, 1], labels [m], centroids [m, 2]."""

    images: FloatArray
    labels: NDArray[np.int32]
    centroids: FloatArray


def quantised(values: ArrayLike) -> FloatArray:
    """Round to multiples of 2^-16, which keeps later sums and products exact in float64."""
    return np.round(np.asarray(values, np.float64) * 65536.0) / 65536.0


@functools.cache
def load_glyphs(split: str) -> Glyphs:
    """Load the glyphs of a split from scikit-learn's wheel.

    Args:
        split: "train" (first 1,437 images) or "test" (last 360).

    Raises:
        ValueError: for another split.
        RuntimeError: if no scikit-learn is installed, or it carries other pixels or another order.

    Source: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI.
    """
    rows = {"train": slice(0, NUM_TRAIN_GLYPHS), "test": slice(NUM_TRAIN_GLYPHS, None)}
    if split not in rows:
        raise ValueError(f"split is {split!r}; allowed: {', '.join(rows)}")
    pixels, labels = _read_digits()
    digest = hashlib.sha256(pixels.tobytes() + labels.astype("<i4").tobytes()).hexdigest()
    if digest != GLYPHS_SHA256:
        raise RuntimeError(f"scikit-learn's digits have SHA-256 {digest}, not {GLYPHS_SHA256}")
    images = pixels[rows[split]] / 16.0
    mass = images.sum((1, 2))
    axis = np.arange(GLYPH_SIZE)
    centroids = np.stack([images.sum(2) @ axis / mass, images.sum(1) @ axis / mass], axis=-1)
    return Glyphs(images, labels[rows[split]], quantised(centroids))


def _read_digits() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Read scikit-learn's table of digits, 64 pixels and a label a row, without importing it.

    Its import takes a second, brings scipy, and pandas where that is installed.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise RuntimeError("Moving Digits are drawn from scikit-learn's digits: pip install it")
    path = pathlib.Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(path, delimiter=",", dtype=np.int32)
    return rows[:, :-1].reshape(-1, GLYPH_SIZE, GLYPH_SIZE).astype(np.uint8), rows[:, -1]


def reflect(positions: ArrayLike, low: float, high: float) -> FloatArray:
    """Fold a free straight path into the walls: the triangle wave of period 2 (high - low).

    Args:
        positions: coordinates along the free path, in pixels, of any shape.
        low: one wall.
        high: the other, above `low`.

    Returns:
        Coordinates in [low, high], float64, of the same shape.
    """
    span = high - low
    phase = np.mod(np.asarray(positions, np.float64) - low, 2.0 * span)
    return low + np.minimum(phase, 2.0 * span - phase)


def bouncing_path(
    start: ArrayLike, velocity: ArrayLike, num_frames: int, world: DigitWorld
) -> FloatArray:
    """Centroid path of a digit, c(t) = reflect(start + velocity t).

    Args:
        start: (y, x) at frame 0, inside the walls, [..., 2].
        velocity: pixels per frame at frame 0, [..., 2].
        num_frames: number of frames f.
        world: walls.

    Returns:
        Positions, [f, ..., 2].
    """
    start, velocity = np.asarray(start), np.asarray(velocity)
    times = np.arange(num_frames, dtype=np.float64).reshape((-1,) + (1,) * start.ndim)
    return reflect(start + velocity * times, world.low, world.high)


def hat_weights(positions: FloatArray, size: int, width: float = 1.0) -> FloatArray:
    """Triangle kernel max(0, 1 - |r - p| / width) / width of every pixel r below `size`.

    Args:
        positions: p in pixels, [...].
        size: number of pixels.
        width: half width of the triangle; 1 is bilinear interpolation.

    Returns:
        Weights, [..., size].
    """
    distance = np.abs(np.arange(size) - np.asarray(positions)[..., None])
    return np.maximum(0.0, 1.0 - distance / width) / width


def splat(
    glyph: FloatArray, centroid: FloatArray, path: FloatArray, world: DigitWorld
) -> FloatArray:
    """Draw one glyph along a path; mass and centroid of every frame are exact.

    Args:
        glyph: ink in [0, 1], [8, 8].
        centroid: its centroid in glyph pixels, [2].
        path: centroid position in each frame, [f, 2].
        world: frame size and digit scale.

    Returns:
        Ink, float64, [f, frame_size, frame_size].
    """
    scale = world.digit_scale
    offsets = scale * (np.arange(GLYPH_SIZE) - centroid[:, None])  # [2, 8]
    positions = path[..., None] + offsets  # [f, 2, 8]
    distance = np.abs(np.arange(world.frame_size) - positions[..., None])  # [f, 2, 8, size]
    # A glyph pixel is `scale` ink pixels wide: the sum of their hats is this trapezoid.
    weights = np.clip(0.5 * (scale + 1) - distance, 0.0, 1.0)
    rows, columns = weights[:, 0].transpose(0, 2, 1), weights[:, 1]
    return rows @ (glyph @ columns)
