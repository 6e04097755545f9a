"""Train the digit classifier and fix the clip feature space: writes `digit_classifier.npz`.

    JAX_PLATFORMS=cpu python -m tpdiff_jax.digits.make_digit_classifier

About a minute on one CPU core. Only train glyphs are used. Each step draws glyphs, warps them
(rotation, scale, shear), gives them a sub-pixel position and crops them about a slightly wrong
centre, then blurs, dims and dirties them: generated digits are blurred and noisy, and a classifier
that knew only clean ones would measure that instead of the digit. Step count and rates were fixed
once; nothing is selected on the test glyphs. Prints the hash for `WEIGHTS_SHA256` and the accuracy
on clean test glyphs. Another machine trains slightly different weights, hence another hash, hence
figures that do not compare: the checked-in file is the metric.
"""

import argparse
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.ndimage import map_coordinates

from tpdiff_jax.digits.clip_features import MIN_SCALE, NUM_APPEARANCE, raw_clip_features
from tpdiff_jax.digits.digit_classifier import LAYER_SHAPES, WEIGHTS_FILE, classifier_forward
from tpdiff_jax.digits.digit_physics import (
    NUM_DIGIT_CLASSES,
    SPEED_BANDS,
    DigitWorld,
    Glyphs,
    bouncing_path,
    load_glyphs,
    splat,
)
from tpdiff_jax.digits.digit_tracking import CROP_SIZE, Tracks, track_digits
from tpdiff_jax.files.durable import writing
from tpdiff_jax.types import Array, PRNGKey

SEED = 0
NUM_STEPS = 4000
BATCH_SIZE = 128
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
LABEL_SMOOTHING = 0.05
MAX_ROTATION, MAX_STRETCH, MAX_SHEAR = 0.2, 0.12, 0.2
MAX_BLUR, MAX_NOISE, CENTRE_ERROR = 0.7, 0.1, 0.2
INK_RANGE = (0.75, 1.1)
NUM_FEATURE_CLIPS = 2048
NUM_FRAMES = 16

ClassifierWeights = dict[str, Array]


def augmented_crop(key: PRNGKey, glyph: Array, centroid: Array) -> Array:
    """One training crop of a glyph: warped, shifted, blurred, scaled and with noise.

    Args:
        key: of all that is drawn.
        glyph: ink in [0, 1], [8, 8].
        centroid: of its ink (y, x), in its pixels, [2].

    Returns:
        Ink in [0, 1], [12, 12].
    """
    key_warp, key_place, key_blur, key_ink, key_noise = jax.random.split(key, 5)
    axis = jnp.arange(CROP_SIZE, dtype=jnp.float32)
    unit = jax.random.uniform(key_warp, (4,), minval=-1.0, maxval=1.0)
    angle, shear = MAX_ROTATION * unit[0], MAX_SHEAR * unit[1]
    stretch = 1.0 + MAX_STRETCH * unit[2:]
    rotation = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    warp = rotation @ jnp.array([[stretch[0], 0.0], [shear, stretch[1]]])
    grid = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij")) - 0.5 * (CROP_SIZE - 1)
    points = jnp.einsum("ij,jhw->ihw", warp, grid) + centroid[:, None, None]
    ink = map_coordinates(glyph, [points[0], points[1]], order=1, mode="constant")

    def moved(distance: Array) -> Array:
        return jnp.maximum(0.0, 1.0 - jnp.abs(axis[:, None] - axis - distance))

    key_shift, key_error = jax.random.split(key_place)
    shift = jax.random.uniform(key_shift, (2,), minval=-0.5, maxval=0.5)
    back = CENTRE_ERROR * jax.random.normal(key_error, (2,)) - shift
    width = jax.random.uniform(key_blur, (), minval=0.05, maxval=MAX_BLUR)
    blur = jnp.exp(-jnp.square(axis[:, None] - axis) / (2.0 * width**2))
    blur = blur / blur.sum(1, keepdims=True)
    rows, columns = (blur @ moved(back[i]) @ moved(shift[i]) for i in (0, 1))
    key_gain, key_level = jax.random.split(key_ink)
    gain = jax.random.uniform(key_gain, (), minval=INK_RANGE[0], maxval=INK_RANGE[1])
    level = jax.random.uniform(key_level, (), maxval=MAX_NOISE)
    dirt = level * jax.random.normal(key_noise, ink.shape)
    return jnp.clip(gain * (rows @ ink @ columns.T) + dirt, 0.0, 1.0)


def initial_weights(key: PRNGKey) -> ClassifierWeights:
    """He-normal kernels and zero biases."""
    weights = {}
    for name, (fan_in, width) in LAYER_SHAPES.items():
        key, key_layer = jax.random.split(key)
        weights[name] = jax.random.normal(key_layer, (fan_in, width)) * jnp.sqrt(2.0 / fan_in)
        weights[f"{name}_bias"] = jnp.zeros(width)
    return weights


def train_classifier(glyphs: Glyphs) -> dict[str, np.ndarray]:
    """Train on augmented crops of the glyphs; returns float32 weights by name."""
    images = jnp.asarray(glyphs.images, jnp.float32)
    centroids = jnp.asarray(glyphs.centroids, jnp.float32)
    labels = jnp.asarray(glyphs.labels)
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, NUM_STEPS)
    optimizer = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)

    def loss(weights: ClassifierWeights, crops: Array, classes: Array) -> Array:
        logits, _ = classifier_forward(weights, crops, jnp)
        targets = optax.smooth_labels(jax.nn.one_hot(classes, NUM_DIGIT_CLASSES), LABEL_SMOOTHING)
        return optax.softmax_cross_entropy(logits, targets).mean()

    def step(
        carry: tuple[ClassifierWeights, optax.OptState], key: PRNGKey
    ) -> tuple[tuple[ClassifierWeights, optax.OptState], None]:
        weights, state = carry
        key_choice, key_crops = jax.random.split(key)
        chosen = jax.random.randint(key_choice, (BATCH_SIZE,), 0, len(labels))
        keys = jax.random.split(key_crops, BATCH_SIZE)
        crops = jax.vmap(augmented_crop)(keys, images[chosen], centroids[chosen])
        gradients = jax.grad(loss)(weights, crops, labels[chosen])
        updates, state = optimizer.update(gradients, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    key_weights, key_steps = jax.random.split(jax.random.key(SEED))
    weights = initial_weights(key_weights)
    keys = jax.random.split(key_steps, NUM_STEPS)
    (weights, _), _ = jax.jit(lambda c, k: jax.lax.scan(step, c, k))(
        (weights, optimizer.init(weights)), keys
    )
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def real_tracks(glyphs: Glyphs, count: int, world: DigitWorld) -> tuple[Tracks, np.ndarray]:
    """Tracks and labels of clips of random glyphs, starts, directions and legal speeds.

    Args:
        glyphs: what to draw from.
        count: n, number of clips.
        world: geometry.

    Returns:
        Tracks of the n clips, and their labels, [n].
    """
    rng = np.random.default_rng(SEED)
    chosen = rng.integers(len(glyphs.labels), size=count)
    videos = np.zeros((count, NUM_FRAMES, world.frame_size, world.frame_size, 1), np.float32)
    for i, glyph in enumerate(chosen):
        bands = SPEED_BANDS["all"]
        speed = rng.uniform(*bands[rng.integers(len(bands))])
        angle = rng.uniform(0.0, 2.0 * np.pi)
        velocity = speed * np.array([-np.sin(angle), np.cos(angle)])
        path = bouncing_path(rng.uniform(world.low, world.high, 2), velocity, NUM_FRAMES, world)
        ink = splat(glyphs.images[glyph], glyphs.centroids[glyph], path, world)
        videos[i, ..., 0] = 2.0 * ink - 1.0
    return track_digits(videos, world), glyphs.labels[chosen]


def feature_space(
    weights: dict[str, np.ndarray], tracks: Tracks, world: DigitWorld
) -> dict[str, np.ndarray]:
    """Principal components of the classifier features and scales of all clip features.

    Args:
        weights: of the classifier, by name.
        tracks: of n real clips.
        world: geometry.

    Returns:
        "components" [32, 8], "components_mean" [32], "feature_mean" and "feature_scale" [24].
    """
    flat = tracks.crops.reshape(-1, CROP_SIZE, CROP_SIZE)
    _, features = classifier_forward(weights, flat)
    features = features.reshape(*tracks.seen.shape, -1).astype(np.float64)
    per_clip = features.mean((1, 2))
    mean = per_clip.mean(0)
    values, vectors = np.linalg.eigh(np.cov((per_clip - mean).T))
    components = vectors[:, ::-1][:, :NUM_APPEARANCE] / np.sqrt(values[::-1][:NUM_APPEARANCE])
    raw = raw_clip_features(tracks, features, world, components, mean)
    return {
        "components": components.astype(np.float32),
        "components_mean": mean.astype(np.float32),
        "feature_mean": raw.mean(0),
        "feature_scale": np.maximum(raw.std(0), MIN_SCALE),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Train, measure, write the file and print its hash; there are no options."""
    program = "python -m tpdiff_jax.digits.make_digit_classifier"
    argparse.ArgumentParser(prog=program, allow_abbrev=False).parse_args(argv)
    world = DigitWorld()
    weights = train_classifier(load_glyphs("train"))
    tracks, _ = real_tracks(load_glyphs("train"), NUM_FEATURE_CLIPS, world)
    space = feature_space(weights, tracks, world)
    arrays = {**weights, **space}
    with writing(WEIGHTS_FILE) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    test_tracks, labels = real_tracks(load_glyphs("test"), 1024, world)
    logits, _ = classifier_forward(weights, test_tracks.crops.reshape(-1, CROP_SIZE, CROP_SIZE))
    frames = logits.argmax(-1).reshape(len(labels), -1)
    print(f"accuracy on single frames of test clips: {np.mean(frames == labels[:, None]):.4f}")
    print(f"WEIGHTS_SHA256 = {hashlib.sha256(WEIGHTS_FILE.read_bytes()).hexdigest()!r}")


if __name__ == "__main__":
    main()
