"""The Moving Digits figures: identity, motion and ink of generated videos, exact where possible.

`evaluate_videos` measures videos against an equally large set of real test clips;
`reference_figures` puts real clips through the same code, as they are (the ceiling) and spoilt:
frozen at their first frame, and with their frames shuffled (the floors). Print them side by side.

With one digit everything is exact on real clips. With two, frames in which the digits are too
close to be told apart are left out (digit_tracking.py), labels are compared as an unordered pair,
and the ceilings are correspondingly worse than perfect.

Garbage in, figures out: a video without a digit, or full of NaN, scores the worst value or a
stated penalty in every figure, never NaN and never an exception.
"""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.digits.clip_features import clip_features
from tpdiff_jax.digits.digit_classifier import classify, load_weights
from tpdiff_jax.digits.digit_motion import (
    Motion,
    even_odd_step,
    fit_motion,
    motion_errors,
    step_lengths,
    wasserstein_1,
)
from tpdiff_jax.digits.digit_physics import NUM_DIGIT_CLASSES, DigitWorld, load_glyphs, splat
from tpdiff_jax.digits.digit_tracking import CROP_SIZE, Tracks, track_digits, video_to_ink
from tpdiff_jax.evals.frechet import sample_frechet_distance
from tpdiff_jax.evals.measures import Metric
from tpdiff_jax.types import FloatArray

MIN_DIGIT_FRAMES = 3


DIGIT_METRICS: tuple[Metric, ...] = (
    Metric("label_accuracy", "higher", "share", "digits classified as requested, over the clip"),
    Metric("identity_consistency", "higher", "share", "frames classified as the clip's majority"),
    Metric("digit_found", "higher", "share", "frames that show enough ink for a digit"),
    Metric("speed_wasserstein", "lower", "px/frame", "distance to the real step-length histogram"),
    Metric("velocity_error", "lower", "px/frame", "step error against the nearest legal path"),
    Metric("bounce_error", "lower", "px/frame", "the same for steps that bounce off a wall"),
    Metric("acceleration_residual", "lower", "px/frame^2", "acceleration away from bounces"),
    Metric("even_odd_step", "lower", "share", "mean steps out of even and odd frames, difference"),
    Metric("even_odd_energy", "lower", "share", "squared ink of even and odd frames, difference"),
    Metric("mass_drift", "lower", "share", "spread of a clip's ink over its frames, over its mean"),
    Metric("mass_error", "lower", "share", "mean ink of a frame against real clips"),
    Metric("stray_ink", "lower", "share", "ink outside the digits' windows"),
    Metric("nearest_train_distance", "match", "ink", "digit image to nearest training image"),
    Metric("frechet", "lower", "1", "Frechet distance in the fixed 24-dimensional clip features"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Everything the figures need to know about n videos.

    Args:
        tracks: found digits.
        motion: their nearest legal paths.
        total_mass: ink of whole frames, [n, f].
        probabilities: class probabilities of every crop, [n, f, digits, 10].
        features: clip features, [n, 24].
    """

    tracks: Tracks
    motion: Motion
    total_mass: FloatArray
    probabilities: FloatArray
    features: FloatArray


def measure_videos(videos: FloatArray, world: DigitWorld) -> Measurement:
    """Track, classify and fit videos [n, f, h, w, c] in [-1, 1]."""
    if np.ndim(videos) == 5 and np.shape(videos)[1] < MIN_DIGIT_FRAMES:
        raise ValueError(
            f"data.num_frames is {np.shape(videos)[1]}; allowed in evaluation: "
            f"{MIN_DIGIT_FRAMES} or more"
        )
    tracks = track_digits(videos, world)
    probabilities, features = classify(tracks.crops)
    return Measurement(
        tracks=tracks,
        motion=fit_motion(tracks, world),
        total_mass=video_to_ink(videos).sum((2, 3), dtype=np.float64),
        probabilities=probabilities,
        features=clip_features(tracks, features, world, load_weights()),
    )


def evaluate_videos(
    videos: FloatArray, labels: NDArray[np.integer], *, real_videos: FloatArray, world: DigitWorld
) -> dict[str, float]:
    """All figures of `DIGIT_METRICS` for a set of videos.

    Args:
        videos: generated, [n, f, h, w, c] in [-1, 1], n >= 2, f >= 3.
        labels: requested digits, [n, num_digits].
        real_videos: real test clips of the same shape.
        world: geometry of the tier.

    Returns:
        One finite float per metric name.

    Raises:
        ValueError: for sets of unequal size, or shapes that are not the world's.
    """
    measured, real = measure_videos(videos, world), measure_videos(real_videos, world)
    return figures(measured, labels, real=real, world=world)


def reference_figures(
    real_videos: FloatArray,
    other_videos: FloatArray,
    other_labels: NDArray[np.integer],
    *,
    world: DigitWorld,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Ceiling and floors: disjoint real clips, as they are, frozen and frame-shuffled.

    Args:
        real_videos: the real clips that generated videos are compared with, [n, f, h, w, c].
        other_videos: as many other real clips.
        other_labels: their labels, [n, num_digits].
        world: geometry of the tier.
        seed: of the frame permutations.

    Returns:
        {"ceiling": figures, "frozen": figures, "shuffled": figures}.
    """
    rng = np.random.default_rng(seed)
    real = measure_videos(real_videos, world)
    n, num_frames = other_videos.shape[:2]
    order = rng.permuted(np.tile(np.arange(num_frames), (n, 1)), axis=1)
    versions = {
        "ceiling": other_videos,
        "frozen": np.repeat(other_videos[:, :1], num_frames, axis=1),
        "shuffled": other_videos[np.arange(n)[:, None], order],
    }
    return {
        name: figures(measure_videos(videos, world), other_labels, real=real, world=world)
        for name, videos in versions.items()
    }


def figures(
    measured: Measurement, labels: NDArray[np.integer], *, real: Measurement, world: DigitWorld
) -> dict[str, float]:
    """The figures of `DIGIT_METRICS` from measurements.

    Args:
        measured: of n videos.
        labels: digits asked for, [n, num_digits].
        real: of n real test clips.
        world: geometry of the tier.

    Returns:
        One float per metric name.

    Raises:
        ValueError: for sets of unequal size, or labels of another shape or type.
    """
    shape = measured.tracks.seen.shape
    if real.tracks.seen.shape != shape:
        raise ValueError(
            f"videos and real_videos have [n, f, digits] {shape} and {real.tracks.seen.shape}; "
            "allowed: equal, because the distances' bias depends on n"
        )
    labels = np.asarray(labels)
    if labels.shape != (shape[0], shape[2]) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels are {labels.dtype} {labels.shape}; allowed: integer {(shape[0], shape[2])}"
        )
    speed_distance = wasserstein_1(step_lengths(measured.motion), step_lengths(real.motion))
    result = {
        "label_accuracy": label_accuracy(measured, labels),
        "identity_consistency": identity_consistency(measured),
        "digit_found": float(measured.tracks.visible.mean()),
        "speed_wasserstein": speed_distance,
        **motion_errors(measured.motion, world),
        "even_odd_step": even_odd_step(measured.motion),
        **_ink_figures(measured, real),
        "nearest_train_distance": nearest_train_distance(measured.tracks, world),
        "frechet": sample_frechet_distance(measured.features, real.features),
    }
    return {metric.name: float(result[metric.name]) for metric in DIGIT_METRICS}


def _usable(tracks: Tracks) -> NDArray[np.bool_]:
    """Frames to classify, [n, f, digits]: seen ones, or visible ones where a clip has none."""
    return np.where(tracks.seen.any(1, keepdims=True), tracks.seen, tracks.visible)


def label_accuracy(measured: Measurement, labels: NDArray[np.integer]) -> float:
    """Share of requested digits that the clip-averaged classifier finds; order does not count.

    Args:
        measured: of n videos.
        labels: requested, [n, num_digits].

    Returns:
        Share in [0, 1]; a digit never visible is wrong.
    """
    usable = _usable(measured.tracks)
    summed = (measured.probabilities * usable[..., None]).sum(1)  # [n, digits, 10]
    found = np.where(usable.any(1), summed.argmax(-1), -1)
    hits = np.stack([(found == labels).mean(-1), (found == labels[:, ::-1]).mean(-1)])
    return float(hits.max(0).mean())


def identity_consistency(measured: Measurement) -> float:
    """Share of a digit's frames classified as its majority; a frame without a digit disagrees."""
    usable, visible = _usable(measured.tracks), measured.tracks.visible
    votes = np.eye(NUM_DIGIT_CLASSES)[measured.probabilities.argmax(-1)] * usable[..., None]
    agreeing = votes.sum(1).max(-1)  # [n, digits]
    counted = usable.sum(1) + (~visible).sum(1)
    return float((agreeing / np.maximum(counted, 1)).mean())


def _ink_figures(measured: Measurement, real: Measurement) -> dict[str, float]:
    """Conservation of ink and its evenness over frames."""
    mass, total = measured.tracks.mass.sum(-1), measured.total_mass  # [n, f]
    mean = total.mean(1)
    drift = np.where(mean > 0, total.std(1) / np.where(mean > 0, mean, 1.0), 1.0)
    inside = np.where(total > 0, mass / np.where(total > 0, total, 1.0), 0.0)
    energy = measured.tracks.energy.sum(-1).mean(0, dtype=np.float64)  # [f]
    even, odd = energy[::2].mean(), energy[1::2].mean()
    return {
        "mass_drift": float(drift.mean()),
        "mass_error": float(abs(total.mean() / max(float(real.total_mass.mean()), 1e-6) - 1.0)),
        "stray_ink": float(np.clip(1.0 - inside, 0.0, 1.0).mean()),
        "even_odd_energy": float(2.0 * abs(even - odd) / (even + odd)) if even + odd > 0 else 2.0,
    }


@functools.cache
def train_images(digit_scale: int) -> FloatArray:
    """Every train glyph as the tracker sees it, mean crop over sub-pixel positions, [1437, 144]."""
    world = DigitWorld(frame_size=16 * digit_scale, digit_scale=digit_scale)
    shifts = digit_scale * (np.arange(3) - 1) / 3.0
    middle = 0.5 * (world.frame_size - 1)
    path = middle + np.stack(np.meshgrid(shifts, shifts, indexing="ij"), -1).reshape(-1, 2)
    glyphs = load_glyphs("train")
    ink = np.stack(
        [
            splat(image, centroid, path, world)
            for image, centroid in zip(glyphs.images, glyphs.centroids, strict=True)
        ]
    )
    tracks = track_digits(2.0 * ink[..., None] - 1.0, world)
    return tracks.crops.mean(axis=(1, 2)).reshape(-1, CROP_SIZE**2)


def nearest_train_distance(tracks: Tracks, world: DigitWorld) -> float:
    """Mean distance of a clip's mean digit image to the nearest train glyph's.

    Far below the ceiling (real test digits): training digits are copied. Far above: no digits.

    Args:
        tracks: of n videos.
        world: geometry.

    Returns:
        Euclidean distance over the 12x12 crop, in ink.
    """
    usable = _usable(tracks)[..., None, None]
    count = np.maximum(usable.sum(1), 1)
    images = (tracks.crops * usable).sum(1) / count  # [n, digits, 12, 12]
    flat = images.reshape(-1, CROP_SIZE**2).astype(np.float64)
    train = train_images(world.digit_scale).astype(np.float64)
    squares = (flat**2).sum(1)[:, None] - 2.0 * flat @ train.T + (train**2).sum(1)
    return float(np.sqrt(np.maximum(squares.min(1), 0.0)).mean())
