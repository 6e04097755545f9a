"""The Frechet distance against closed forms and scipy's matrix square root."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from tpdiff_jax.evals.frechet import frechet_distance, sample_frechet_distance


def random_covariance(rng, d, rank):
    factor = rng.standard_normal((d, rank))
    return factor @ factor.T


@pytest.mark.parametrize("d", [1, 3, 24])
def test_equals_scipy_for_full_rank(d):
    rng = np.random.default_rng(d)
    mean_a, mean_b = rng.standard_normal((2, d))
    cov_a, cov_b = (random_covariance(rng, d, d + 2) for _ in range(2))
    expected = np.sum((mean_a - mean_b) ** 2) + np.trace(
        cov_a + cov_b - 2.0 * np.real(sqrtm(cov_a @ cov_b))
    )
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(expected, rel=1e-7)


def test_commuting_covariances_have_the_closed_form():
    # d^2 = sum (m_a - m_b)^2 + sum (s_a - s_b)^2 for diagonal covariances s^2.
    s_a, s_b = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 0.25])
    mean = np.array([1.0, -2.0, 0.0])
    expected = 5.0 + 4.0 + 2.25 + 0.0625
    assert frechet_distance(mean, np.diag(s_a**2), 0 * mean, np.diag(s_b**2)) == pytest.approx(
        expected, rel=1e-12
    )


def test_singular_covariances_are_exact():
    # Two rank-one Gaussians along u and v: tr of the root is |u . v|.
    u, v = np.array([3.0, 0.0]), np.array([1.0, 1.0])
    expected = 9.0 + 2.0 - 2.0 * 3.0
    zero = np.zeros(2)
    assert frechet_distance(zero, np.outer(u, u), zero, np.outer(v, v)) == pytest.approx(expected)


def test_is_symmetric_zero_at_itself_and_invariant_under_rotation():
    rng = np.random.default_rng(0)
    mean_a, mean_b = rng.standard_normal((2, 5))
    cov_a, cov_b = (random_covariance(rng, 5, 7) for _ in range(2))
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    there = frechet_distance(mean_a, cov_a, mean_b, cov_b)
    assert frechet_distance(mean_b, cov_b, mean_a, cov_a) == pytest.approx(there)
    assert frechet_distance(mean_a, cov_a, mean_a, cov_a) == pytest.approx(0.0, abs=1e-9)
    turned = frechet_distance(
        rotation @ mean_a,
        rotation @ cov_a @ rotation.T,
        rotation @ mean_b,
        rotation @ cov_b @ rotation.T,
    )
    assert turned == pytest.approx(there)


def test_samples_use_their_mean_and_unbiased_covariance():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 50, 4))
    expected = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert sample_frechet_distance(a, b) == pytest.approx(expected)
    assert sample_frechet_distance(a, a + [3.0, 0.0, 4.0, 0.0]) == pytest.approx(25.0)


def test_a_constant_sample_has_a_distance():
    assert sample_frechet_distance(np.zeros((4, 3)), np.ones((4, 3))) == pytest.approx(3.0)


def test_unequal_sizes_tiny_samples_and_nan_are_refused():
    for a, b in (((4, 2), (5, 2)), ((4, 2), (4, 3)), ((1, 2), (1, 2))):
        with pytest.raises(ValueError, match="depends on n"):
            sample_frechet_distance(np.zeros(a), np.zeros(b))
    with pytest.raises(ValueError, match="finite"):
        sample_frechet_distance(np.full((4, 2), np.nan), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="shapes"):
        frechet_distance(np.zeros(2), np.eye(3), np.zeros(2), np.eye(2))
