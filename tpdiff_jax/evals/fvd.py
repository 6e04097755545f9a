"""Frechet video distance by the published protocol: I3D's logits of 16 frames at 224 x 224.

    d^2 = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2})

Frames of 0 to 255 are resized bilinearly without antialiasing and scaled to [-1, 1]; the 400
logits before the softmax are averaged over time; means and covariances are in float64, the
covariance divides by N, the root is scipy's `sqrtm`, of which the real part counts. `frechet.py`
holds a distance without the general root; both agree where covariances are well conditioned.

The distance is biased by the sample size: 512 draws from a 400-dimensional unit Gaussian lie 92
from it, 2,048 draws 22, and two such samples are further from each other. It is read only beside
the distance of real clips from other real clips at the same N.

Source: Unterthiner et al., arXiv 1812.01717; 1/N and the real part as in StyleGAN-V's metric.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.checks import check_choice
from tpdiff_jax.evals.frechet import check_samples
from tpdiff_jax.evals.i3d import FRAME_SIZE, i3d_logits
from tpdiff_jax.evals.i3d_weights import I3DWeights
from tpdiff_jax.types import Array

RESIZE_KERNELS = ("half_pixel", "legacy")


def resize_matrix(size: int, kernel: str, new_size: int = FRAME_SIZE) -> NDArray[np.float32]:
    """Return the bilinear resampling of one axis, [new_size, size]; rows sum to 1.

    Args:
        size: length of the axis.
        kernel: "half_pixel" (pixel centres at i + 1/2, as PyTorch with align_corners=False) or
            "legacy" (pixel i at i, as TensorFlow 1's resize_bilinear).
        new_size: length afterwards.

    Raises:
        ValueError: for an unknown kernel.
    """
    check_choice("measure.fvd_resize", kernel, RESIZE_KERNELS)
    shift = 0.5 if kernel == "half_pixel" else 0.0
    at = (np.arange(new_size) + shift) * size / new_size - shift
    at = np.clip(at, 0.0, size - 1.0)
    left = np.floor(at).astype(int)
    share = at - left
    matrix = np.zeros((new_size, size))
    rows = np.arange(new_size)
    np.add.at(matrix, (rows, left), 1.0 - share)
    np.add.at(matrix, (rows, np.minimum(left + 1, size - 1)), share)
    return matrix.astype(np.float32)


def clips_to_input(frames: NDArray[np.uint8], kernel: str) -> Array:
    """Return I3D's input of clips [b, f, h, w, 3] of uint8: [b, f, 224, 224, 3] in [-1, 1]."""
    rows, columns = (resize_matrix(size, kernel) for size in frames.shape[2:4])
    x = jnp.asarray(frames, jnp.float32)
    if frames.shape[2:4] != (FRAME_SIZE, FRAME_SIZE):
        x = jnp.einsum("ih,bfhwc->bfiwc", rows, x, precision=jax.lax.Precision.HIGHEST)
        x = jnp.einsum("jw,bfiwc->bfijc", columns, x, precision=jax.lax.Precision.HIGHEST)
    return x / 127.5 - 1.0


def i3d_features(
    weights: I3DWeights,
    clips: NDArray[np.uint8],
    *,
    kernel: str = "half_pixel",
    batch_size: int = 4,
    on_progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return the logits of clips.

    Args:
        weights: of the network.
        clips: frames, uint8 [n, f, h, w, 3], f >= 9.
        kernel: see `resize_matrix`.
        batch_size: clips at once; the last batch is padded.
        on_progress: called with the number of finished clips.

    Returns:
        [n, 400].
    """
    logits = _logits_function(kernel)
    parts = []
    for start in range(0, len(clips), batch_size):
        index = np.minimum(np.arange(start, start + batch_size), len(clips) - 1)
        parts.append(np.asarray(logits(weights.params, clips[index])))
        if on_progress is not None:
            on_progress(min(start + batch_size, len(clips)))
    return np.concatenate(parts)[: len(clips)]


@functools.cache
def _logits_function(kernel: str) -> Callable[..., Array]:
    return jax.jit(lambda params, clips: i3d_logits(params, clips_to_input(clips, kernel)))


def gaussian_fit(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean [d] and covariance [d, d], divided by N, of features [n, d], in float64."""
    rows: NDArray[np.float64] = np.asarray(features, np.float64)
    mean: NDArray[np.float64] = rows.mean(0)
    centred = rows - mean
    return mean, centred.T @ centred / len(rows)


def frechet_video_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return the protocol's distance of two equally large samples of features.

    Args:
        a: [n, d], n >= 2.
        b: [n, d].

    Raises:
        ValueError: for unequal sizes, or values that are not finite.
    """
    a, b = check_samples(a, b)
    import scipy.linalg  # half a second, for this figure alone

    (mean_a, cov_a), (mean_b, cov_b) = gaussian_fit(a), gaussian_fit(b)
    root = np.real(scipy.linalg.sqrtm(cov_a @ cov_b))
    return float(np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2.0 * root))
