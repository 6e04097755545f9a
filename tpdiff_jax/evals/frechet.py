"""Frechet distance between Gaussians, and between the Gaussian fits of two samples.

    d^2 = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^{1/2} C_b C_a^{1/2})^{1/2})

The trace of the root is the sum of the square roots of the eigenvalues of the symmetric matrix
C_a^{1/2} C_b C_a^{1/2}, so no general matrix square root, no complex numbers and no added epsilon
are needed, and singular covariances are exact.

The distance between samples is biased upwards, the more the smaller the samples: unequal sizes
are refused, and a distance is read only beside the real-against-real one at the same size.

Source: Dowson and Landau (1982); Heusel et al., arXiv 1706.08500, Eq. 6.
"""

import numpy as np

from tpdiff_jax.types import FloatArray


def frechet_distance(
    mean_a: FloatArray, cov_a: FloatArray, mean_b: FloatArray, cov_b: FloatArray
) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians, in float64.

    Args:
        mean_a: [d].
        cov_a: symmetric, positive semi-definite, [d, d].
        mean_b: [d].
        cov_b: [d, d].

    Returns:
        d^2 of the module docstring, at least 0.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    mean_a, cov_a, mean_b, cov_b = (
        np.asarray(a, np.float64) for a in (mean_a, cov_a, mean_b, cov_b)
    )
    d = len(mean_a)
    if mean_b.shape != (d,) or cov_a.shape != (d, d) or cov_b.shape != (d, d):
        raise ValueError(
            f"means and covariances have shapes {mean_a.shape}, {cov_a.shape}, {mean_b.shape}, "
            f"{cov_b.shape}; allowed: [d], [d, d], [d], [d, d]"
        )
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    product = root_a @ cov_b @ root_a
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(0.5 * (product + product.T)), 0.0)).sum()
    shift = np.sum((mean_a - mean_b) ** 2)
    return float(max(shift + np.trace(cov_a) + np.trace(cov_b) - 2.0 * overlap, 0.0))


def sample_frechet_distance(a: FloatArray, b: FloatArray) -> float:
    """Squared Frechet distance of the Gaussian fits of two equally large samples.

    Args:
        a: features, [n, d], n >= 2.
        b: features, [n, d].

    Returns:
        The distance, biased upwards by the sampling error of both fits.

    Raises:
        ValueError: for unequal sizes, fewer than two samples, or values that are not finite.
    """
    a, b = check_samples(a, b)
    cov_a, cov_b = (np.atleast_2d(np.cov(s, rowvar=False)) for s in (a, b))
    return frechet_distance(a.mean(0), cov_a, b.mean(0), cov_b)


def check_samples(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return two samples of features in float64.

    Raises:
        ValueError: for unequal sizes, fewer than two samples, or values that are not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or a.shape != b.shape or len(a) < 2:
        raise ValueError(
            f"samples have shapes {a.shape} and {b.shape}; allowed: equal [n, d] with n >= 2, "
            "because the bias depends on n"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("samples hold NaN or infinities; allowed: finite values")
    return a, b
