"""The distance without a trained network: what it must see, and that real clips come out best."""

import numpy as np
import pytest

from tpdiff_jax.evals.video_statistics import (
    NUM_STATISTICS,
    statistics_distance,
    video_statistics,
)


def moving_pictures(n, seed):
    """Smooth random pictures that pan at a constant velocity, uint8 [n, 8, 24, 24, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:24, :24]
    clips = np.zeros((n, 8, 24, 24, 3))
    for clip in clips:
        waves = rng.normal(0, 0.25, (6, 2)), rng.uniform(0, 6.3, 6), rng.normal(0, 30, (6, 3))
        velocity = rng.normal(0, 1.5, 2)
        for t, frame in enumerate(clip):
            for (ky, kx), phase, colour in zip(*waves, strict=True):
                wave = np.cos(ky * (y + velocity[0] * t) + kx * (x + velocity[1] * t) + phase)
                frame += wave[..., None] * colour
    return np.clip(clips + 128, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def sets():
    return moving_pictures(100, 0), moving_pictures(100, 1)


def spoilt(clips):
    rng = np.random.default_rng(2)
    noisy = clips + rng.normal(0, 25, clips.shape)
    blurred = (
        sum(np.roll(clips.astype(float), (i, j), (2, 3)) for i in range(5) for j in range(5)) / 25
    )
    popping = clips.astype(float)
    popping[:, 1::2] += 12
    versions = {
        "frozen": np.repeat(clips[:, :1], 8, axis=1),
        "shuffled": clips[:, [3, 0, 6, 1, 7, 4, 2, 5]],
        "noisy": noisy,
        "blurred": blurred,
        "popping": popping,
        "grey": np.repeat(clips.mean(-1, keepdims=True), 3, axis=-1),
        "slow": np.repeat(clips[:, :4], 2, axis=1),
    }
    return {name: np.clip(v, 0, 255).astype(np.uint8) for name, v in versions.items()}


def test_real_clips_are_nearer_than_any_spoilt_version(sets):
    real, other = (video_statistics(clips) for clips in sets)
    floor = statistics_distance(other, real, real)
    for name, clips in spoilt(sets[1]).items():
        distance = statistics_distance(video_statistics(clips), real, real)
        assert distance > 1.5 * floor, name


def test_a_set_is_at_no_distance_from_itself_and_garbage_at_a_finite_one(sets):
    real = video_statistics(sets[0])
    assert real.shape == (100, NUM_STATISTICS) and np.isfinite(real).all()
    assert statistics_distance(real, real, real) == pytest.approx(0.0, abs=1e-9)
    black = video_statistics(np.zeros_like(sets[0]))
    assert np.isfinite(statistics_distance(black, real, real))


def test_statistics_of_known_clips():
    """Black to white and back: even and odd frames differ fully, every change is undone."""
    clip = np.zeros((1, 5, 16, 16, 3), np.uint8)
    clip[:, 1::2] = 255
    found = video_statistics(clip)[0]
    assert found[0] == pytest.approx(-0.2)  # three of five frames are at -1
    assert found[12] == pytest.approx(np.log(2 + 1e-3))  # changes of 2
    assert found[13] == pytest.approx(np.log(4 + 1e-3))  # second differences of 4
    assert found[20] == pytest.approx(np.log(1e-3))  # the last frame is the first
    assert found[21] == pytest.approx(-1.0)
    assert found[23] == pytest.approx(1.0)
    assert found[3:6] == pytest.approx([np.sqrt(0.96), 0, 0], abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 2, 16, 16, 3), (1, 8, 16, 16, 1), (1, 8, 4, 16, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="clips have shape"):
        video_statistics(np.zeros(shape, np.uint8))


def test_unequal_sets_are_refused(sets):
    real = video_statistics(sets[0][:8])
    with pytest.raises(ValueError, match="depends on n"):
        statistics_distance(real[:4], real, real)
