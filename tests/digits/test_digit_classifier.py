"""The checked-in classifier is the released one, small, and good enough on unseen digits."""

import numpy as np
import pytest
from scipy.signal import correlate2d

from tpdiff_jax.data import MovingDigitsSpec, stack_clips
from tpdiff_jax.digits import digit_classifier
from tpdiff_jax.digits.clip_features import NUM_CLIP_FEATURES, clip_features
from tpdiff_jax.digits.digit_classifier import (
    WEIGHTS_FILE,
    classifier_forward,
    classify,
    load_weights,
)
from tpdiff_jax.digits.digit_tracking import track_digits

SPEC = MovingDigitsSpec(speed_stratum="all")


def test_weights_are_small_and_numeric():
    assert WEIGHTS_FILE.stat().st_size < 300_000
    assert all(np.issubdtype(a.dtype, np.floating) for a in load_weights().values())


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    content = bytearray(WEIGHTS_FILE.read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / "digit_classifier.npz"
    changed.write_bytes(bytes(content))
    monkeypatch.setattr(digit_classifier, "WEIGHTS_FILE", changed)
    load_weights.cache_clear()
    with pytest.raises(RuntimeError, match="SHA-256"):
        load_weights()
    load_weights.cache_clear()


def test_convolutions_equal_scipy_correlation():
    rng = np.random.default_rng(0)
    weights = {k: rng.standard_normal(v.shape) for k, v in load_weights().items()}
    crop = rng.uniform(size=(12, 12))
    x = crop[..., None]
    for name, stride in (("conv_1", 1), ("conv_2", 2)):
        kernel = weights[name].reshape(3, 3, x.shape[-1], -1)
        x = np.stack(
            [
                sum(correlate2d(x[..., c], kernel[:, :, c, o], "valid") for c in range(x.shape[-1]))
                + weights[f"{name}_bias"][o]
                for o in range(kernel.shape[-1])
            ],
            axis=-1,
        )[::stride, ::stride]
        x = np.maximum(x, 0.0)
    expected = np.maximum(x.reshape(-1) @ weights["dense"] + weights["dense_bias"], 0.0)
    _, features = classifier_forward(weights, crop[None])
    np.testing.assert_allclose(features[0], expected, rtol=1e-9)


@pytest.mark.parametrize("blur", [False, True])
def test_unseen_digits_are_classified_sharp_and_blurred(blur):
    clips = stack_clips(SPEC, "test", 0, 256)
    video = clips["video"]
    if blur:
        for axis in (2, 3):
            video = 0.25 * np.roll(video, 1, axis) + 0.5 * video + 0.25 * np.roll(video, -1, axis)
    probabilities, _ = classify(track_digits(video, SPEC.world).crops)
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    hits = probabilities[:, :, 0].mean(1).argmax(-1) == clips["label"][:, 0]
    assert hits.mean() > (0.9 if blur else 0.95)


def test_clip_features_are_standardised_on_real_training_clips():
    clips = stack_clips(SPEC, "train", 1, 512)
    tracks = track_digits(clips["video"], SPEC.world)
    _, features = classify(tracks.crops)
    z = clip_features(tracks, features, SPEC.world, load_weights())
    assert z.shape == (512, NUM_CLIP_FEATURES)
    # Mean 0 within four standard errors of two samples (here and where the scales were fixed).
    assert np.abs(z.mean(0)).max() < 4 * np.sqrt(1 / 512 + 1 / 2048)
    assert z.std(0).max() < 1.2


def test_swapping_two_digits_does_not_change_the_clip_features():
    spec = MovingDigitsSpec(frame_size=64, num_digits=2)
    clips = stack_clips(spec, "test", 0, 8)
    tracks = track_digits(clips["video"], spec.world)
    _, features = classify(tracks.crops)
    swapped = type(tracks)(**{k: v[:, :, ::-1] for k, v in vars(tracks).items()})
    a = clip_features(tracks, features, spec.world, load_weights())
    b = clip_features(swapped, features[:, :, ::-1], spec.world, load_weights())
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
