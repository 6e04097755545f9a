"""The fixed 24-dimensional feature space of the Moving Digits Frechet distance.

Per clip, averaged over its digits:

    appearance  8   principal components of the classifier's penultimate features, mean over frames
    flicker     4   standard deviation over frames of the first four of them
    motion     12   `MOTION_STATISTICS` of the tracked path and of the ink

so that a wrong digit, a digit that changes, and a digit that moves wrongly all move the Gaussian.
Every feature is centred and scaled by its mean and standard deviation on real training clips
(scale at least `MIN_SCALE`), which are checked in with the classifier, and clipped at
`FEATURE_LIMIT` so that one garbage clip cannot decide the figure. Lengths are in glyph pixels:
both tiers share the space. With 24 dimensions 256 clips suffice; the sampling bias left is the
real-against-real figure printed beside each distance.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.digits.digit_physics import DigitWorld
from tpdiff_jax.digits.digit_tracking import Tracks
from tpdiff_jax.types import FloatArray

NUM_APPEARANCE, NUM_FLICKER = 8, 4
MOTION_STATISTICS = (
    "mean_y",
    "mean_x",
    "spread_y",
    "spread_x",
    "step_mean",
    "step_spread",
    "bend_mean",
    "turn_cosine",
    "net_displacement",
    "mass_mean",
    "mass_spread",
    "sharpness",
)
NUM_CLIP_FEATURES = NUM_APPEARANCE + NUM_FLICKER + len(MOTION_STATISTICS)
MIN_SCALE = 0.05
FEATURE_LIMIT = 10.0


def clip_features(
    tracks: Tracks, features: FloatArray, world: DigitWorld, space: Mapping[str, np.ndarray]
) -> FloatArray:
    """Standardised features of every clip.

    Args:
        tracks: of n clips.
        features: classifier features of their crops, [n, f, digits, 32].
        world: geometry.
        space: "components" [32, 8], "components_mean" [32], "feature_mean" and "feature_scale"
            [24], as checked in.

    Returns:
        Features in [-10, 10], [n, 24].
    """
    raw = raw_clip_features(tracks, features, world, space["components"], space["components_mean"])
    scaled = (raw - space["feature_mean"]) / space["feature_scale"]
    return np.clip(scaled, -FEATURE_LIMIT, FEATURE_LIMIT)


def raw_clip_features(
    tracks: Tracks,
    features: FloatArray,
    world: DigitWorld,
    components: FloatArray,
    components_mean: FloatArray,
) -> FloatArray:
    """Features before standardisation.

    Args:
        tracks: of n clips.
        features: classifier features of their crops, [n, f, digits, 32].
        world: geometry.
        components: directions of the features that count, [32, 8].
        components_mean: mean of the features, [32].

    Returns:
        [n, 24], each the mean over a clip's digits.
    """
    projected = (features - components_mean) @ components  # [n, f, digits, 8]
    seen = tracks.seen
    flicker = _spread(projected[..., :NUM_FLICKER], seen)
    per_digit = np.concatenate(
        [_mean(projected, seen), flicker, _motion_statistics(tracks, world)], axis=-1
    )
    return per_digit.mean(axis=1)  # over digits


def _motion_statistics(tracks: Tracks, world: DigitWorld) -> FloatArray:
    """`MOTION_STATISTICS` of each digit in glyph pixels, [n, digits, 12]."""
    scale = world.digit_scale
    seen = tracks.seen
    path = (tracks.centres - 0.5 * (world.frame_size - 1)) / scale
    mass = tracks.mass[..., None] / scale**2
    step = np.diff(path, axis=1)
    has_step = seen[:, 1:] & seen[:, :-1]
    has_bend = has_step[:, 1:] & has_step[:, :-1]
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    bend = np.linalg.norm(np.diff(step, axis=1), axis=-1, keepdims=True)
    turn = (step[:, 1:] * step[:, :-1]).sum(-1, keepdims=True)
    turn = turn / np.maximum(length[:, 1:] * length[:, :-1], 1e-6)
    net = np.linalg.norm(path[:, -1] - path[:, 0], axis=-1, keepdims=True)
    sharpness = tracks.energy[..., None] / np.maximum(tracks.mass[..., None], 1e-6)
    columns = [
        _mean(path, seen),
        _spread(path, seen),
        _mean(length, has_step),
        _spread(length, has_step),
        _mean(bend, has_bend),
        _mean(turn, has_bend),
        net,
        _mean(mass, seen),
        _spread(mass, seen),
        _mean(sharpness, seen),
    ]
    return np.concatenate(columns, axis=-1)


def _mean(values: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
    """Mean over frames of values [n, f, digits, k] where mask [n, f, digits]; 0 if nowhere."""
    count = np.maximum(mask.sum(1), 1)[..., None]
    return (values * mask[..., None]).sum(1, dtype=np.float64) / count


def _spread(values: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
    """Standard deviation over frames where mask; 0 if nowhere."""
    centred = values - _mean(values, mask)[:, None]
    return np.sqrt(_mean(centred**2, mask))
