"""A small digit classifier on motion-centred crops, with checked-in weights.

Two 3x3 convolutions and two linear layers, 22 thousand weights, trained on the train glyphs by
`python -m tpdiff_jax.digits.make_digit_classifier`, which wrote `digit_classifier.npz`. The same
forward function trains (jax.numpy) and evaluates (numpy).

The file also holds the fixed projection and scales of the clip features (see clip_features.py).
"""

import functools
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tpdiff_jax.digits.digit_physics import NUM_DIGIT_CLASSES
from tpdiff_jax.digits.digit_tracking import CROP_SIZE
from tpdiff_jax.types import FloatArray

WEIGHTS_FILE = Path(__file__).with_name("digit_classifier.npz")
WEIGHTS_SHA256 = "cf8c2bda1cb14659c153901c9b7589084eab946b56cadb29a0ea91745a2118d1"
"""Printed by the script that makes the file; figures of different hashes do not compare."""
NUM_CROP_FEATURES = 32
LAYER_SHAPES = {
    "conv_1": (9, 16),
    "conv_2": (9 * 16, 32),
    "dense": (4 * 4 * 32, NUM_CROP_FEATURES),
    "logits": (NUM_CROP_FEATURES, NUM_DIGIT_CLASSES),
}


@functools.cache
def load_weights() -> Mapping[str, np.ndarray]:
    """Load the checked-in arrays, after comparing the file's SHA-256.

    Raises:
        RuntimeError: if the file is not the one this code was released with.
    """
    content = WEIGHTS_FILE.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise RuntimeError(f"{WEIGHTS_FILE.name} has SHA-256 {digest}, not {WEIGHTS_SHA256}")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def classifier_forward(weights: Mapping[str, Any], crops: Any, xp: Any = np) -> tuple[Any, Any]:
    """Logits and penultimate features.

    Args:
        weights: "conv_1", "conv_2", "dense", "logits", each with its "_bias".
        crops: ink in [0, 1], [m, 12, 12].
        xp: numpy or jax.numpy.

    Returns:
        Logits [m, 10] and features [m, 32].
    """
    x = _convolve(crops[..., None], weights, "conv_1", 1, xp)  # [m, 10, 10, 16]
    x = _convolve(x, weights, "conv_2", 2, xp)  # [m, 4, 4, 32]
    x = x.reshape(x.shape[0], -1)
    features = xp.maximum(x @ weights["dense"] + weights["dense_bias"], 0.0)
    return features @ weights["logits"] + weights["logits_bias"], features


def _convolve(x: Any, weights: Mapping[str, Any], name: str, stride: int, xp: Any) -> Any:
    """3x3 convolution without padding, then relu, on [m, h, w, c]."""
    end = [(size - 3) // stride * stride + 1 for size in x.shape[1:3]]
    patches = [
        x[:, i : i + end[0] : stride, j : j + end[1] : stride] for i in range(3) for j in range(3)
    ]
    return xp.maximum(xp.concatenate(patches, -1) @ weights[name] + weights[f"{name}_bias"], 0.0)


def classify(crops: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Class probabilities and features of crops.

    Args:
        crops: ink in [0, 1], [..., 12, 12].

    Returns:
        Probabilities [..., 10] and features [..., 32].
    """
    flat = np.asarray(crops, np.float32).reshape(-1, CROP_SIZE, CROP_SIZE)
    logits, features = classifier_forward(load_weights(), flat)
    logits = logits - logits.max(-1, keepdims=True)
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(-1, keepdims=True)
    leading = np.shape(crops)[:-2]
    return (
        probabilities.reshape(*leading, NUM_DIGIT_CLASSES),
        features.reshape(*leading, NUM_CROP_FEATURES),
    )
