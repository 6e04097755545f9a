"""The law that a sampler of few steps reaches when the network predicts as well as can be.

Take videos as Gaussian, with the measured covariance S of every spatial band (the bands are
independent). On a stage's line x_t = gamma_t a_i + sigma_t e_i (`method.stage_line`) the best
predictor is then a matrix of its own for every band,

    a_i = A x_0,               A = D_i + alpha (D_i - U D_{i-1}),   alpha = gamma_s sigma_e / d
    e_i = eps + E x_0,         E = -beta (D_i - U D_{i-1}),         beta = gamma_s gamma_e / d
    E[a_i | x_t] = G x_t,      G = cov(a_i, x_t) cov(x_t)^{-1}
    E[e_i | x_t] = (I - gamma_t G) / sigma_t x_t

(of a marginal line A = D_i and E = 0), so that every solver step is a matrix, a stage is their
product P, and a jump adds its noise:

    C_e = P C_s P^T,           C_s' = (gamma_s/gamma_e)^2 U C_e U^T + sigma_s^2 (I - U U^T / L)

From white noise this ends at C, the covariance of what is sampled, exactly. With ever more steps
C goes to S; what few steps leave is the distance of optimal transport between the two laws,

    W^2 = tr S + tr C - 2 tr (S^{1/2} C S^{1/2})^{1/2}

added over coefficients, as a share of the data's spread: error = sqrt(sum W^2 / sum tr S). 1 is
the error of a sampler that shows the mean of all videos.

Clips are taken less their mean over clips and frames, which every upsampling here carries along.
Trained networks err more than this: the error says what the settings alone cost.
"""

import math

import numpy as np

from tpdiff_jax.advice.clip_spectrum import ClipSpectrum
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.pyramid import Pyramid
from tpdiff_jax.method.sampler_spec import SamplerSpec
from tpdiff_jax.method.solver_coefficients import solver_coefficients
from tpdiff_jax.method.stage_line import detail_weights
from tpdiff_jax.method.time_grids import time_grids
from tpdiff_jax.types import FloatArray


class GaussianVideos:
    """Gaussian videos of a measured spectrum; keeps what the candidates of a search share."""

    def __init__(self, spectrum: ClipSpectrum) -> None:
        """Take the covariances of a spectrum; their roots are found once."""
        self.spectrum = spectrum
        values, vectors = np.linalg.eigh(spectrum.covs)
        roots = np.sqrt(np.maximum(values, 0.0))
        self._root = (vectors * roots[:, None]) @ vectors.swapaxes(1, 2)
        self._maps: dict[tuple, FloatArray] = {}

    def sampled_covs(self, pyramid: Pyramid, spec: SamplerSpec) -> FloatArray:
        """The covariance of what is sampled.

        Args:
            pyramid: stages over time alone, of as many frames as the spectrum has.
            spec: solver, steps, grids and jumps; guidance is none.

        Returns:
            C of each band, float64, [bands, F, F].
        """
        frames = pyramid.stages[0].num_frames
        cov = np.broadcast_to(np.eye(frames), (len(self.spectrum.covs), frames, frames))
        for stage, grid in zip(pyramid.stages, time_grids(pyramid, spec), strict=True):
            if stage.jump is not None:
                up, scale = stage.jump.upsample.matrices[0], stage.jump.scale
                fresh = np.eye(len(up)) - up @ up.T / stage.jump.eigenvalue
                cov = up @ cov @ up.T
                if spec.renoise:
                    cov = scale**2 * cov + stage.sigma_start**2 * fresh
            product = self._stage_map(pyramid, stage.index, grid, spec.solver)
            cov = product @ cov @ product.swapaxes(1, 2)
        return cov

    def error(self, pyramid: Pyramid, spec: SamplerSpec) -> float:
        """The share of the data's spread by which the sampled law misses the data's.

        Args:
            pyramid: as for `sampled_covs`.
            spec: likewise.

        Returns:
            0 or more.
        """
        return self.distance(self.sampled_covs(pyramid, spec))

    def distance(self, covs: FloatArray) -> float:
        """The relative distance between a law of these covariances and the data's.

        Args:
            covs: C of each band, [bands, F, F].

        Returns:
            0 or more; 1 for C = 0.
        """
        counts, data = self.spectrum.counts, self.spectrum.covs
        both = np.linalg.eigvalsh(self._root @ covs @ self._root)
        shared = np.sqrt(np.maximum(both, 0.0)).sum(1)
        spread = counts @ np.trace(data, axis1=1, axis2=2)
        squares = spread + counts @ (np.trace(covs, axis1=1, axis2=2) - 2.0 * shared)
        return math.sqrt(max(float(squares / spread), 0.0))

    def _stage_map(self, pyramid: Pyramid, i: int, grid: FloatArray, solver: str) -> FloatArray:
        """P: the solver steps of stage i as one matrix a band, [bands, f, f]."""
        stage = pyramid.stages[i]
        own, known = stage_matrices(pyramid, i)
        detail = 0.0 * own if pyramid.line == "marginal" else own - known
        key = (own.tobytes(), detail.tobytes(), grid.tobytes(), solver, pyramid.path)
        if key not in self._maps:
            alpha, beta = detail_weights(stage)
            data, noise = own + alpha * detail, -beta * detail
            rows = solver_coefficients(pyramid.path, grid, solver)
            self._maps[key] = self._steps(pyramid, rows, data, noise)
        return self._maps[key]

    def _steps(
        self, pyramid: Pyramid, rows: FloatArray, data: FloatArray, noise: FloatArray
    ) -> FloatArray:
        """P, from the coefficients of the steps and the line's matrices A and E, both [f, F]."""
        covs, is_flow = self.spectrum.covs, isinstance(pyramid.path, FlowPath)
        aa, ae, ee = (left @ covs @ right.T for left, right in
                      ((data, data), (data, noise), (noise, noise)))  # fmt: skip
        both, ee = ae + ae.swapaxes(1, 2), ee + np.eye(len(data))
        x = np.broadcast_to(np.eye(len(data)), aa.shape)
        memory_before = np.zeros_like(aa)
        for t, gamma_next, sigma_next, c in rows:
            gamma, sigma, _ = pyramid.path.host_scales(t)
            cov_point = gamma**2 * aa + gamma * sigma * both + sigma**2 * ee
            cov_data = gamma * aa + sigma * ae  # cov(a_i, x_t)
            a = np.linalg.solve(cov_point, cov_data.swapaxes(1, 2)).swapaxes(1, 2) @ x
            e = (x - gamma * a) / sigma
            memory = e - a if is_flow else a
            x = gamma_next * a + sigma_next * e + c * (memory - memory_before)
            memory_before = memory
        return x


def stage_matrices(pyramid: Pyramid, stage_index: int) -> tuple[FloatArray, FloatArray]:
    """What a stage shows of the full video, and what the stage before knew of it, over time.

    Args:
        pyramid: the pyramid.
        stage_index: i.

    Returns:
        D_i and U D_{i-1}, which for stage 0 is D_0: both float64, [f, F].
    """
    stage = pyramid.stages[stage_index]
    own = stage.downsample.matrices[0]
    if stage.jump is None:
        return own, own
    coarse = pyramid.stages[stage_index - 1].downsample.matrices[0]
    return own, stage.jump.upsample.matrices[0] @ coarse
