"""The nearest legal path, on true paths and on spoilt ones, against hand arithmetic."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from tpdiff_jax.digits.digit_motion import (
    even_odd_step,
    fit_motion,
    motion_errors,
    step_lengths,
    wasserstein_1,
)
from tpdiff_jax.digits.digit_physics import DigitWorld, bouncing_path
from tpdiff_jax.digits.digit_tracking import Tracks

WORLD = DigitWorld(speed_stratum="all")


def tracks_of(paths, visible=True):
    """Tracks that were measured without error; paths [n, f, 2]."""
    shape = paths.shape[:2] + (1,)
    seen = np.broadcast_to(visible, shape)
    return Tracks(
        centres=np.asarray(paths)[:, :, None],
        mass=20.0 * seen,
        energy=10.0 * seen,
        visible=seen,
        seen=seen,
        crops=np.zeros(shape + (12, 12)),
    )


def random_paths(count, num_frames=16, seed=0):
    rng = np.random.default_rng(seed)
    speed, angle = rng.uniform(0.5, 3.0, count), rng.uniform(0, 2 * np.pi, count)
    velocity = speed[:, None] * np.stack([np.sin(angle), np.cos(angle)], -1)
    start = rng.uniform(WORLD.low, WORLD.high, (count, 2))
    return bouncing_path(start, velocity, num_frames, WORLD).swapaxes(0, 1), velocity


def errors_of(paths):
    return motion_errors(fit_motion(tracks_of(paths), WORLD), WORLD)


@pytest.mark.parametrize("num_frames", [8, 16, 32])
def test_the_fit_finds_velocity_and_bounces_of_legal_paths(num_frames):
    paths, velocity = random_paths(300, num_frames)
    motion = fit_motion(tracks_of(paths), WORLD)
    speed = np.linalg.norm(motion.velocity, axis=-1)
    true_speed = np.linalg.norm(velocity, axis=-1)
    close = np.isclose(speed, true_speed[:, None], atol=1e-6).all(1)
    assert close.mean() > 0.99
    bent = ~np.isclose(np.diff(paths, axis=1), np.diff(paths, axis=1)[:, :1], atol=1e-6).all(-1)
    assert motion.is_bounce.any(1)[close].sum() >= bent.any(1)[close].sum()
    errors = errors_of(paths)
    assert max(errors.values()) < 0.02


def test_a_still_digit_is_wrong_by_the_smallest_legal_speed():
    still = np.full((3, 16, 2), 15.0)
    errors = errors_of(still)
    assert errors["velocity_error"] == pytest.approx(0.5)
    assert errors["acceleration_residual"] == 0.0
    assert errors["bounce_error"] == WORLD.wrong_speed


def test_a_digit_that_is_too_fast_is_wrong_by_the_excess():
    path = np.stack([np.full(6, 15.0), 6.0 + 3.5 * np.arange(6)], -1)[None]
    assert errors_of(path)["velocity_error"] == pytest.approx(0.5, abs=1e-6)


def test_a_digit_that_stops_at_the_wall_breaks_the_bounce_law():
    clean, _ = random_paths(200)
    stuck = np.array(clean)
    for path in stuck:  # stay where the first bounce happened
        bent = ~np.isclose(np.diff(path, axis=0), path[1] - path[0], atol=1e-6).all(-1)
        if bent.any():
            path[bent.argmax() + 1 :] = path[bent.argmax()]
    assert errors_of(clean)["bounce_error"] < 0.02
    assert errors_of(stuck)["bounce_error"] > 0.2


def test_an_absorbing_wall_shows_as_velocity_error():
    # Half the speed after the bounce at the right wall: 1.0 before, 0.5 after, eight steps each.
    x = np.concatenate([18.25 + np.arange(9), 26.25 - 0.5 * np.arange(1, 9)])
    path = np.stack([np.full(17, 15.0), x], -1)[None]
    error = errors_of(path)["velocity_error"]
    assert 0.1 < error < 0.5


def test_jitter_of_known_size_gives_its_acceleration():
    # Independent jitter of variance s^2 per axis: bend has variance 6 s^2 per axis, so its mean
    # length is sqrt(6 pi / 2) s.
    rng = np.random.default_rng(0)
    y = 15.0 + 0.02 * rng.standard_normal((400, 16))
    x = 6.0 + 1.2 * np.arange(16) + 0.02 * rng.standard_normal((400, 16))
    residual = errors_of(np.stack([y, x], -1))["acceleration_residual"]
    assert residual == pytest.approx(np.sqrt(6 * np.pi / 2) * 0.02, rel=0.03)


def test_repeated_frames_alternate_and_smooth_motion_does_not():
    paths = np.stack([np.full((5, 16), 15.0), 6 + np.arange(16) * np.ones((5, 1))], -1)
    assert even_odd_step(fit_motion(tracks_of(paths), WORLD)) == pytest.approx(0.0, abs=1e-9)
    doubled = np.repeat(paths[:, ::2], 2, axis=1)
    assert even_odd_step(fit_motion(tracks_of(doubled), WORLD)) == pytest.approx(2.0)


def test_a_missing_digit_counts_as_the_fastest_digit_standing_still():
    paths, _ = random_paths(4)
    motion = fit_motion(tracks_of(paths, visible=False), WORLD)
    assert set(motion_errors(motion, WORLD).values()) == {WORLD.wrong_speed}
    np.testing.assert_array_equal(step_lengths(motion), np.zeros(4 * 15))
    assert even_odd_step(motion) == 2.0


def test_gaps_in_a_track_do_not_change_a_legal_path():
    paths, _ = random_paths(50)
    visible = np.ones((50, 16, 1), bool)
    visible[:, [3, 9, 10]] = False
    spoilt = np.where(visible, paths, 0.0)
    errors = motion_errors(fit_motion(tracks_of(spoilt, visible), WORLD), WORLD)
    assert max(errors.values()) < 0.02


def test_wasserstein_equals_scipy_for_unequal_samples():
    rng = np.random.default_rng(0)
    a, b = rng.gamma(2.0, size=70), rng.normal(size=31)
    assert wasserstein_1(a, b) == pytest.approx(wasserstein_distance(a, b), rel=1e-12)
    assert wasserstein_1(a, a + 1.5) == pytest.approx(1.5)
    assert wasserstein_1([0.0], [1.0, 3.0]) == pytest.approx(2.0)


def test_wasserstein_refuses_empty_samples():
    with pytest.raises(ValueError, match="at least one"):
        wasserstein_1(np.zeros(0), np.ones(3))
