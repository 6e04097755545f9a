"""How much clips vary, and how alike their frames are, at each spatial frequency.

With y the spatial cosine coefficients (an orthonormal DCT-II over height and width) of a clip less
the mean over clips and frames, band B holds those whose radial frequency

    rho = sqrt((u / 2H)^2 + (v / 2W)^2)      in cycles a pixel, u, v = 0, 1, ...

lies between its ends, of every channel, and has one covariance over frames:

    C_B[f, g] = mean over clips and over the coefficients of B of y_f y_g         [F, F]

The transform keeps lengths, so that the sum over bands of (coefficients) times C_B is the
covariance of all pixels of a video. Nothing is known of what a number means: pixels and latents
are measured alike. Clips are read once and never kept.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable

import numpy as np

from tpdiff_jax.method.axis_matrices import cosine_basis
from tpdiff_jax.types import FloatArray

NUM_BANDS = 12


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ClipSpectrum:
    """Covariances over frames, by band of spatial frequency.

    Attributes:
        covs: C_B, float64, [bands, F, F].
        counts: coefficients of each band, all channels together, [bands].
        frequencies: mean radial frequency of each band, cycles a pixel, rising, [bands].
        num_clips: clips that were measured.
        means: of each channel, over clips, frames and places, [c].
    """

    covs: FloatArray
    counts: FloatArray
    frequencies: FloatArray
    num_clips: int
    means: tuple[float, ...] = (0.0,)

    @property
    def num_frames(self) -> int:
        """F."""
        return self.covs.shape[-1]

    @functools.cached_property
    def total_cov(self) -> FloatArray:
        """The covariance over frames of all pixels together, [F, F]."""
        return np.einsum("b,bfg->fg", self.counts, self.covs)

    @property
    def variance(self) -> float:
        """Mean variance of a pixel (or of a number of a latent)."""
        return float(np.trace(self.total_cov) / (self.num_frames * self.counts.sum()))

    def first_frames(self, num_frames: int) -> "ClipSpectrum":
        """The same of the first frames of every clip alone.

        Args:
            num_frames: how many, 1 to F.
        """
        return dataclasses.replace(self, covs=self.covs[:, :num_frames, :num_frames])


def measure_spectrum(clips: Iterable[FloatArray], num_bands: int = NUM_BANDS) -> ClipSpectrum:
    """Measure clips of one shape.

    Args:
        clips: videos, each [f, h, w, c].
        num_bands: bands of equal width between frequency 0 and the highest; empty ones are left
            out, and the mean of a frame (frequency 0) is a band by itself.

    Returns:
        The spectrum, in the order of frequencies.

    Raises:
        ValueError: no clips, numbers that are not finite, or clips that do not vary at all.
    """
    meter: _Meter | None = None
    for clip in clips:
        video = np.asarray(clip, np.float64)
        if not np.isfinite(video).all():
            raise ValueError("the clips hold numbers that are not finite")
        meter = meter or _Meter(video.shape, num_bands)
        meter.add(video)
    if meter is None:
        raise ValueError("there are no clips to measure")
    return meter.spectrum()


class _Meter:
    """Sums over clips."""

    def __init__(self, shape: tuple[int, ...], num_bands: int) -> None:
        frames, height, width, channels = shape
        self._shape = shape
        self._rows, self._columns = cosine_basis(height), cosine_basis(width)
        rho = np.hypot.outer(np.arange(height) / (2 * height), np.arange(width) / (2 * width))
        self._rho = np.repeat(rho.ravel(), channels)
        self._num_places = height * width
        highest = max(float(rho.max()), 1e-9)
        band = np.ceil(self._rho / highest * num_bands - 1e-9).astype(int)  # 0 is the mean alone
        self._places = [np.flatnonzero(band == one) for one in np.unique(band)]
        self._products = np.zeros((len(self._places), frames, frames))
        self._sums = np.zeros((frames, self._rho.size))
        self._count = 0

    def add(self, video: FloatArray) -> None:
        if video.shape != self._shape:
            raise ValueError(f"clips have shapes {self._shape} and {video.shape}")
        y = np.einsum("uh,fhwc->fuwc", self._rows, video, optimize=True)
        y = np.einsum("vw,fuwc->fuvc", self._columns, y, optimize=True).reshape(len(video), -1)
        for product, places in zip(self._products, self._places, strict=True):
            product += y[:, places] @ y[:, places].T
        self._sums += y
        self._count += 1

    def spectrum(self) -> ClipSpectrum:
        mean = self._sums / self._count  # over clips, [f, coefficients]
        level = mean.mean(0)  # over frames too: what is taken away
        counts = np.array([len(places) for places in self._places], float)
        covs = np.zeros_like(self._products)
        for b, places in enumerate(self._places):
            cross = np.broadcast_to((mean[:, places] @ level[places])[:, None], covs[b].shape)
            square = level[places] @ level[places]
            covs[b] = (self._products[b] / self._count - cross - cross.T + square) / counts[b]
        powers = np.array([product.trace() for product in self._products]) / self._count
        rounding = 1e-12 * powers.sum() / counts.sum()
        if np.einsum("b,bff->", counts, covs) <= rounding * counts.sum():
            raise ValueError("the clips do not vary: every frame of every clip is the same")
        return ClipSpectrum(
            covs=(covs + covs.swapaxes(1, 2)) / 2.0,
            counts=counts,
            frequencies=np.array([self._rho[places].mean() for places in self._places]),
            num_clips=self._count,
            means=tuple((level[self._rho == 0.0] / math.sqrt(self._num_places)).tolist()),
        )
