"""Find the digits of a video: centroids, masses and motion-centred crops, one track per digit.

One digit: the heaviest glyph-sized window gives a start, then the ink centroid inside a window
around it, repeated until it rests. The window is wider than any glyph, so on a real clip it holds
all ink and the centroid is exact; background errors of a generated video outside it do not count.

Two digits: every pixel belongs to the nearer of two centres (k-means inside the windows), and a
constant-velocity prediction that bounces off the walls tells which centre is whose. Where two
digits are closer than `RESOLVED_DISTANCE`, no split of the ink is trustworthy: such frames are
marked unseen, and every figure is taken over seen frames only.

Any video has a result: NaN and infinities read as background, and a frame without enough ink is
unseen, with its centre predicted.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.digits.digit_physics import DigitWorld, hat_weights, reflect
from tpdiff_jax.types import FloatArray

CROP_SIZE = 12
"""Crops are 12x12 glyph pixels: any glyph about its centroid, plus the drawing kernel."""
WINDOW_REACH = 6.5
"""Half width of the centroid's window in glyph pixels: reach 4.75, kernel 1, and slack."""
MIN_MASS = 3.0
"""Ink below which a frame shows no digit, in glyph pixels; the lightest real glyph has 11.6."""
RESOLVED_DISTANCE = 8.0
"""Two centroids closer than this, in glyph pixels, are not told apart: 32 % of the frames of real
two-digit clips. Of the other frames, 0.5 % have a centroid more than a pixel off."""
REFINEMENTS = 6
CHUNK = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tracks:
    """What was found in n videos.

    Args:
        centres: (y, x) of each digit in each frame, pixels, [n, f, digits, 2].
        mass: its ink, pixels, [n, f, digits].
        energy: its squared ink, [n, f, digits].
        visible: whether there is enough ink, [n, f, digits].
        seen: whether the digit is visible and told apart from the other, [n, f, digits].
        crops: its ink about its centre on the glyph's grid, [n, f, digits, 12, 12].
    """

    centres: FloatArray
    mass: FloatArray
    energy: FloatArray
    visible: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    crops: FloatArray


def video_to_ink(videos: FloatArray) -> FloatArray:
    """Map videos [n, f, h, w, c] in [-1, 1] to ink [n, f, h, w] in [0, 1]; NaN is background."""
    grey = np.asarray(videos, np.float32).mean(axis=-1)
    grey = np.nan_to_num(grey, nan=-1.0, posinf=-1.0, neginf=-1.0)
    return np.clip(0.5 * (grey + 1.0), 0.0, 1.0)


def track_digits(videos: FloatArray, world: DigitWorld) -> Tracks:
    """Track every digit of every video.

    Args:
        videos: [n, f, h, w, c] in [-1, 1].
        world: frame size, number of digits and their scale.

    Returns:
        Tracks; digit order is arbitrary but constant over a clip.

    Raises:
        ValueError: if the videos' shape is not the world's.
    """
    size = world.frame_size
    if np.ndim(videos) != 5 or np.shape(videos)[2:4] != (size, size) or len(videos) < 1:
        raise ValueError(
            f"videos have shape {np.shape(videos)}; allowed: [n, f, {size}, {size}, c] with n >= 1"
        )
    chunks = [
        _track_ink(video_to_ink(videos[i : i + CHUNK]), world) for i in range(0, len(videos), CHUNK)
    ]
    fields = [f.name for f in dataclasses.fields(Tracks)]
    return Tracks(**{k: np.concatenate([getattr(c, k) for c in chunks]) for k in fields})


def _track_ink(ink: FloatArray, world: DigitWorld) -> Tracks:
    scale = world.digit_scale
    centres, owned = _refine(ink, _heaviest_windows(ink, world), world)
    crops = np.stack([_crop(o, centres[:, :, j], scale) for j, o in enumerate(owned)], axis=2)
    mass = np.stack([o.sum((2, 3)) for o in owned], axis=2)
    energy = np.stack([np.square(o).sum((2, 3)) for o in owned], axis=2)
    visible = mass >= MIN_MASS * scale**2
    seen = visible
    if world.num_digits == 2:
        gap = np.linalg.norm(centres[:, :, 0] - centres[:, :, 1], axis=-1)
        seen = seen & (gap >= RESOLVED_DISTANCE * scale)[..., None]
    order = _order_over_time(centres, seen, world)  # [n, f, digits]
    fields = {
        "centres": centres,
        "mass": mass,
        "energy": energy,
        "visible": visible,
        "seen": seen,
        "crops": crops,
    }
    return Tracks(
        **{
            k: np.take_along_axis(a, order.reshape(order.shape + (1,) * (a.ndim - 3)), axis=2)
            for k, a in fields.items()
        }
    )


def _heaviest_windows(ink: FloatArray, world: DigitWorld) -> FloatArray:
    """Centre of the heaviest glyph-sized box, then of the heaviest in what is left."""
    half = 4 * world.digit_scale
    size = ink.shape[-1]
    axis = np.arange(size)
    box = (np.abs(axis[:, None] - axis) <= half).astype(ink.dtype)
    # A slight pull to the box's middle: all boxes that hold the whole digit weigh the same.
    box *= 1.0 - 0.01 * np.abs(axis[:, None] - axis) / half
    left = ink
    centres = []
    for _ in range(world.num_digits):
        weight = box @ left @ box
        peak = weight.reshape(*weight.shape[:2], -1).argmax(-1)
        centre = np.stack(np.divmod(peak, size), axis=-1).astype(np.float64)
        centres.append(centre)
        inside = np.abs(axis - centre[..., None]) <= half  # [n, f, 2, size]
        left = left * ~(inside[:, :, 0, :, None] & inside[:, :, 1, None, :])
    return np.stack(centres, axis=2)


def _refine(
    ink: FloatArray, centres: FloatArray, world: DigitWorld
) -> tuple[FloatArray, list[FloatArray]]:
    """Repeat: give pixels to the nearer centre inside its window; move centres to centroids."""
    axis = np.arange(ink.shape[-1], dtype=np.float64)
    owned: list[FloatArray] = []
    for _ in range(REFINEMENTS):
        owned = _owned_ink(ink, centres, world)
        moved = []
        for j, own in enumerate(owned):
            rows, columns = own.sum(3, dtype=np.float64), own.sum(2, dtype=np.float64)
            mass = rows.sum(-1)
            total = np.stack([rows @ axis, columns @ axis], axis=-1)
            has_ink = (mass > 0)[..., None]
            safe = np.where(has_ink, mass[..., None], 1.0)
            moved.append(np.where(has_ink, total / safe, centres[:, :, j]))
        centres = np.stack(moved, axis=2)
    return centres, owned


def _owned_ink(ink: FloatArray, centres: FloatArray, world: DigitWorld) -> list[FloatArray]:
    """Ink of each digit: inside its window and, of two, nearer to it than to the other."""
    axis = np.arange(ink.shape[-1])
    reach = WINDOW_REACH * world.digit_scale
    inside = np.abs(axis - centres[..., None]) <= reach  # [n, f, digits, 2, size]
    windows = [
        inside[:, :, j, 0, :, None] & inside[:, :, j, 1, None, :] for j in range(world.num_digits)
    ]
    if world.num_digits == 2:
        squares = np.square(axis - centres[..., None])
        excess = squares[:, :, 0] - squares[:, :, 1]  # [n, f, 2, size]
        is_first = excess[:, :, 0, :, None] < -excess[:, :, 1, None, :]
        windows = [windows[0] & is_first, windows[1] & ~is_first]
    return [ink * window for window in windows]


def _crop(ink: FloatArray, centres: FloatArray, scale: int) -> FloatArray:
    """Sample ink [n, f, h, w] on the glyph's grid about centres [n, f, 2]: [n, f, 12, 12]."""
    offsets = scale * (np.arange(CROP_SIZE) - 0.5 * (CROP_SIZE - 1))
    points = centres[..., None] + offsets  # [n, f, 2, 12]
    weights = hat_weights(points, ink.shape[-1], float(scale)).astype(ink.dtype)
    return weights[:, :, 0] @ ink @ weights[:, :, 1].swapaxes(-1, -2)


def _order_over_time(
    centres: FloatArray, seen: NDArray[np.bool_], world: DigitWorld
) -> NDArray[np.intp]:
    """Which found centre continues which track, [n, f, digits]; the identity for one digit."""
    n, num_frames, num_digits = seen.shape
    order = np.tile(np.arange(num_digits), (n, num_frames, 1))
    if num_digits == 1:
        return order
    position = centres[:, 0].copy()
    velocity = np.zeros_like(position)
    was_seen = seen[:, 0]
    for t in range(1, num_frames):
        straight = position + velocity
        predicted = reflect(straight, world.low, world.high)
        velocity = np.where(predicted == straight, velocity, -velocity)
        found = centres[:, t]
        keep = np.linalg.norm(found - predicted, axis=-1).sum(-1)
        swap = np.linalg.norm(found[:, ::-1] - predicted, axis=-1).sum(-1)
        order[:, t] = np.where((swap < keep)[:, None], [1, 0], [0, 1])
        found = np.take_along_axis(found, order[:, t, :, None], axis=1)
        now_seen = np.take_along_axis(seen[:, t], order[:, t], axis=1)
        both = (was_seen & now_seen)[..., None]
        velocity = np.where(both, found - position, velocity)
        position = np.where(now_seen[..., None], found, predicted)
        was_seen = now_seen
    return order
