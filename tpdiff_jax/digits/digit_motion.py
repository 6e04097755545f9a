"""Does it move as it should? Measured tracks against the nearest legal bouncing path.

Nobody knows which path a generated digit meant to take, so each track is first explained by the
law itself: per axis, start x_0 and velocity v minimise the mean distance to reflect(x_0 + v t)
(a search over v and over the frame the path is pinned to, then least squares on the path unfolded
at its bounces). The fit says where bounces are and which way the digit goes; its speed is moved to
the nearest legal one. What is reported is then local:

    step error of frame t:  | c_{t+1} - reflect(c_t + v_t) |,   v_t the legal velocity at frame t

averaged over the steps without a bounce (`velocity_error`) and over those with one
(`bounce_error`), so that a digit which stands still is wrong by the smallest legal speed, and
|c_{t+1} - 2 c_t + c_{t-1}| where no bounce lies between (`acceleration_residual`).

Everything is in pixels of the video. A track whose digit is never visible in two frames in a row
counts as wrong by `world.wrong_speed`, as much as the fastest digit standing still; a track that is
visible but has no step of the wanted kind (two digits never apart, no bounce) is left out.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.digits.digit_physics import DigitWorld, reflect
from tpdiff_jax.digits.digit_tracking import Tracks
from tpdiff_jax.types import FloatArray

SPEED_SEARCH_REACH = 1.2
"""Velocities are searched up to this multiple of the largest speed of any stratum."""
SPEED_SEARCH_STEP = 0.1
"""Grid of the search in pixels per frame at scale 1; least squares does the rest."""
MAX_PINS = 8
UNFOLDINGS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Motion:
    """The legal path nearest to each track; r = n * digits rows, frames last but one.

    Args:
        centres: measured, [r, f, 2].
        seen: [r, f].
        is_missing: whether the digit is never visible in two frames in a row, [r].
        velocity: velocity of the fit at each frame, its speed made legal, [r, f, 2].
        is_bounce: whether the fit bounces between frames t and t + 1, [r, f - 1].
    """

    centres: FloatArray
    seen: NDArray[np.bool_]
    is_missing: NDArray[np.bool_]
    velocity: FloatArray
    is_bounce: NDArray[np.bool_]


def fit_motion(tracks: Tracks, world: DigitWorld) -> Motion:
    """Fit the bouncing law to every track.

    Args:
        tracks: of n videos.
        world: walls and legal speeds.

    Returns:
        Motion of n * digits rows.
    """
    n, f, digits = tracks.seen.shape
    centres = tracks.centres.transpose(0, 2, 1, 3).reshape(n * digits, f, 2)
    seen = tracks.seen.transpose(0, 2, 1).reshape(n * digits, f)
    visible = tracks.visible.transpose(0, 2, 1).reshape(n * digits, f)
    per_axis = centres.transpose(0, 2, 1).reshape(-1, f)  # [2 r, f]
    start, velocity = _fit_axis(per_axis, np.repeat(seen, 2, axis=0), world)
    branch = _branch(start[:, None] + velocity[:, None] * np.arange(f), world)  # [2 r, f]
    signed = velocity[:, None] * np.where(branch % 2, -1.0, 1.0)
    signed = signed.reshape(-1, 2, f).transpose(0, 2, 1)
    is_bounce = (np.diff(branch, axis=-1) != 0).reshape(-1, 2, f - 1).any(axis=1)
    return Motion(
        centres=centres,
        seen=seen,
        is_missing=np.logical_not((visible[:, 1:] & visible[:, :-1]).any(-1)),
        velocity=_legal(signed, world),
        is_bounce=is_bounce,
    )


def _branch(straight: FloatArray, world: DigitWorld) -> NDArray[np.int64]:
    """How many spans lie below a point of the unfolded path; odd branches run backwards."""
    return np.floor((straight - world.low) / world.span).astype(np.int64)


def _legal(velocity: FloatArray, world: DigitWorld) -> FloatArray:
    """Scale velocities [..., 2] to the nearest legal speed; a zero one points to the right."""
    speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
    direction = np.where(speed > 0, velocity / np.where(speed > 0, speed, 1.0), [0.0, 1.0])
    return direction * np.clip(speed, world.min_speed, world.max_speed)


def _fit_axis(
    x: FloatArray, seen: NDArray[np.bool_], world: DigitWorld
) -> tuple[FloatArray, FloatArray]:
    """Start and velocity, each [r], of the legal path nearest to x [r, f] over the seen frames."""
    f = x.shape[1]
    times = np.arange(f, dtype=np.float64)
    weight = seen.astype(np.float64)
    total = np.maximum(weight.sum(-1), 1.0)
    reach = SPEED_SEARCH_REACH * world.wrong_speed
    grid = np.arange(-reach, reach, SPEED_SEARCH_STEP * world.digit_scale)
    best = np.full(len(x), np.inf)
    start: FloatArray = x[:, 0].copy()
    velocity: FloatArray = np.zeros(len(x))
    for pin in np.unique(np.linspace(0, f - 1, min(f, MAX_PINS)).astype(int)):
        starts = x[:, pin, None] - grid * pin  # [r, v]
        path = reflect(starts[..., None] + grid[:, None] * times, world.low, world.high)
        cost = np.einsum("rvf,rf->rv", np.abs(path - x[:, None]), weight) / total[:, None]
        choice = cost.argmin(-1)
        cost_of_choice = np.take_along_axis(cost, choice[:, None], axis=1)[:, 0]
        is_better = cost_of_choice < best
        best = np.where(is_better, cost_of_choice, best)
        start = np.where(is_better, starts[np.arange(len(x)), choice], start)
        velocity = np.where(is_better, grid[choice], velocity)
    for _ in range(UNFOLDINGS):
        start, velocity = _refit_unfolded(x, weight, start, velocity, world)
    return start, velocity


def _refit_unfolded(
    x: FloatArray, weight: FloatArray, start: FloatArray, velocity: FloatArray, world: DigitWorld
) -> tuple[FloatArray, FloatArray]:
    """Unfold x at the bounces of the current fit and fit a straight line by least squares."""
    times = np.arange(x.shape[1], dtype=np.float64)
    branch = _branch(start[:, None] + velocity[:, None] * times, world)
    within = x - world.low
    within = np.where(branch % 2, world.span - within, within)
    straight = world.low + branch * world.span + within
    total = np.maximum(weight.sum(-1), 1.0)
    mean_t = weight @ times / total
    mean_x = (weight * straight).sum(-1) / total
    centred = times - mean_t[:, None]
    spread = (weight * centred**2).sum(-1)
    slope = (weight * centred * straight).sum(-1) / np.where(spread > 0, spread, 1.0)
    slope = np.where(spread > 0, slope, 0.0)
    return mean_x - slope * mean_t, slope


def step_lengths(motion: Motion) -> FloatArray:
    """Lengths of all seen steps, pooled, pixels, [at least 1].

    A missing digit counts as standing still, and so does a set without a single seen step.
    """
    steps = np.linalg.norm(np.diff(motion.centres, axis=1), axis=-1)
    has_step = _both_seen(motion)
    num_still = int(motion.is_missing.sum()) * steps.shape[1]
    num_still = num_still if has_step.any() else max(num_still, 1)
    return np.concatenate([steps[has_step], np.zeros(num_still)])


def motion_errors(motion: Motion, world: DigitWorld) -> dict[str, float]:
    """Velocity error, bounce error and acceleration residual (module docstring), in pixels."""
    c = motion.centres
    legal = reflect(c[:, :-1] + motion.velocity[:, :-1], world.low, world.high)
    error = np.linalg.norm(c[:, 1:] - legal, axis=-1)  # [r, f - 1]
    has_step = _both_seen(motion)
    is_free = has_step & ~motion.is_bounce
    bend = np.linalg.norm(c[:, 2:] - 2.0 * c[:, 1:-1] + c[:, :-2], axis=-1)  # [r, f - 2]
    parts: dict[str, tuple[FloatArray, NDArray[np.bool_]]] = {
        "velocity_error": (error, is_free),
        "bounce_error": (error, has_step & motion.is_bounce),
        "acceleration_residual": (bend, is_free[:, 1:] & is_free[:, :-1]),
    }
    return {
        name: _mean_of_rows(values, mask, motion.is_missing, world.wrong_speed)
        for name, (values, mask) in parts.items()
    }


def _both_seen(motion: Motion) -> NDArray[np.bool_]:
    return motion.seen[:, 1:] & motion.seen[:, :-1]


def _mean_of_rows(
    values: FloatArray, mask: NDArray[np.bool_], is_missing: NDArray[np.bool_], penalty: float
) -> float:
    """Mean over rows of each row's masked mean.

    Missing rows count `penalty`, other rows with nothing to average are left out; if that leaves
    no row, the result is `penalty`.
    """
    count = mask.sum(-1)
    means: FloatArray = np.where(count > 0, (values * mask).sum(-1) / np.maximum(count, 1), penalty)
    means = means[(count > 0) | is_missing]
    return float(means.mean()) if len(means) else float(penalty)


def even_odd_step(motion: Motion) -> float:
    """Relative difference between the mean step out of even frames and out of odd frames.

    A stage that copies even frames into odd ones and does not repair them alternates short and
    long steps; 0 is none, 2 the most and what videos without two seen frames in a row get.
    """
    steps = np.linalg.norm(np.diff(motion.centres, axis=1), axis=-1)
    has_step = _both_seen(motion)
    if not has_step.any():
        return 2.0
    parts = [
        (steps * has_step)[:, i::2].sum() / max(int(has_step[:, i::2].sum()), 1) for i in (0, 1)
    ]
    total = 0.5 * (parts[0] + parts[1])
    return float(abs(parts[0] - parts[1]) / total) if total > 0 else 0.0


def wasserstein_1(a: FloatArray, b: FloatArray) -> float:
    """Wasserstein-1 distance of two samples, the area between their distribution functions.

        W_1 = int |F_a(x) - F_b(x)| dx

    Args:
        a: sample, [n], n >= 1.
        b: sample, [m], m >= 1; n and m may differ.

    Returns:
        The distance, in the samples' unit.

    Raises:
        ValueError: for an empty sample.
    """
    a, b = np.sort(np.ravel(a)), np.sort(np.ravel(b))
    if not len(a) or not len(b):
        raise ValueError(f"samples have {len(a)} and {len(b)} values; allowed: at least one each")
    points = np.sort(np.concatenate([a, b]))
    below_a = np.searchsorted(a, points[:-1], side="right") / len(a)
    below_b = np.searchsorted(b, points[:-1], side="right") / len(b)
    return float(np.sum(np.abs(below_a - below_b) * np.diff(points)))
