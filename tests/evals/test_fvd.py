"""The Frechet video distance: its resizing, its Gaussians, its bias with the sample size."""

import numpy as np
import pytest
import torch

from tests.evals.i3d_reference import random_reference
from tpdiff_jax.evals.frechet import frechet_distance
from tpdiff_jax.evals.fvd import (
    clips_to_input,
    frechet_video_distance,
    gaussian_fit,
    i3d_features,
    resize_matrix,
)
from tpdiff_jax.evals.i3d_weights import I3DWeights, params_from_tensors


@pytest.mark.parametrize("shape", [(32, 32), (100, 64), (300, 260), (224, 224)])
def test_half_pixel_frames_equal_pytorch_s(shape):
    clips = np.random.default_rng(0).integers(0, 256, (1, 2, *shape, 3), np.uint8)
    found = np.asarray(clips_to_input(clips, "half_pixel"))
    pictures = torch.from_numpy(clips[0]).permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(pictures, (224, 224), mode="bilinear")
    expected = resized.permute(0, 2, 3, 1).numpy() / 127.5 - 1
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_legacy_rows_start_at_the_pixel_itself():
    """TensorFlow 1: output i reads input i * size / new_size, the last pixel held."""
    matrix = resize_matrix(2, "legacy", 4)
    np.testing.assert_allclose(matrix, [[1, 0], [0.5, 0.5], [0, 1], [0, 1]])
    np.testing.assert_allclose(resize_matrix(7, "legacy").sum(1), 1.0, atol=1e-6)
    with pytest.raises(
        ValueError, match="measure.fvd_resize is 'cubic'; allowed: 'half_pixel', 'leg"
    ):
        resize_matrix(7, "cubic")


def test_features_do_not_depend_on_the_batch():
    state = random_reference(1 / 16).state_dict()
    params = params_from_tensors({n: t.numpy() for n, t in state.items()}, 1 / 16)
    weights = I3DWeights(params, "", {})
    clips = np.random.default_rng(0).integers(0, 256, (2, 9, 20, 24, 3), np.uint8)
    together, done = i3d_features(weights, clips, batch_size=2), []
    alone = i3d_features(weights, clips[1:], batch_size=2, on_progress=done.append)
    assert together.shape == (2, 400) and done == [1]
    np.testing.assert_allclose(together[1:], alone, atol=1e-4)


def whitened(rng, n, d):
    """A sample of exactly mean 0 and covariance I, divided by N."""
    x = rng.standard_normal((n, d))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / n)).T


def test_gaussians_have_the_closed_form():
    """Commuting covariances: |m_a - m_b|^2 + sum (s_a - s_b)^2, exactly."""
    rng = np.random.default_rng(0)
    x, s_a, s_b = whitened(rng, 500, 20), rng.uniform(0.5, 2, 20), rng.uniform(0.5, 2, 20)
    shift = rng.standard_normal(20)
    turn = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    expected = np.sum(shift**2) + np.sum((s_a - s_b) ** 2)
    found = frechet_video_distance((x * s_a) @ turn, (x * s_b + shift) @ turn)
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_covariance_divides_by_n_and_both_roots_agree():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((300, 30)), 1.3 * rng.standard_normal((300, 30)) + 0.2
    mean, cov = gaussian_fit(a)
    np.testing.assert_allclose(cov, np.cov(a.T, bias=True), atol=1e-12)
    np.testing.assert_allclose(mean, a.mean(0))
    expected = frechet_distance(*gaussian_fit(a), *gaussian_fit(b))
    assert frechet_video_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_the_bias_of_equal_gaussians_is_the_known_one():
    """A sample of 512 lies 92 from the 400-dimensional Gaussian that it was drawn from."""
    rng = np.random.default_rng(2)
    sample, gaussian = rng.standard_normal((512, 400)), whitened(rng, 512, 400)
    assert frechet_video_distance(sample, gaussian) == pytest.approx(92, rel=0.05)


def test_fewer_clips_than_dimensions_have_a_distance():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 10, 40))
    expected = frechet_distance(*gaussian_fit(a), *gaussian_fit(b))
    assert frechet_video_distance(a, b) == pytest.approx(expected, rel=1e-3)
    assert frechet_video_distance(a, a) == pytest.approx(0.0, abs=1e-3)


def test_unequal_samples_and_nan_are_refused():
    with pytest.raises(ValueError, match="depends on n"):
        frechet_video_distance(np.zeros((4, 2)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="finite"):
        frechet_video_distance(np.full((4, 2), np.nan), np.zeros((4, 2)))
