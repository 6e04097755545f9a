"""D, U and the jump's noise factor over time, height and width: one small matrix an axis.

Resampling over several axes is one matrix an axis, applied one after another, so that U U^T is
their Kronecker product, and

    L = L_t L_h L_w                                       its largest eigenvalue
    (I - U U^T / L)^{1/2} z = z + B (w - 1) B^T z         B the three eigenbases, one after another
    w = (1 - c_t c_h c_w / L)^{1/2}                       c their eigenvalues

No matrix is larger than one axis, and an axis that stays as it is costs nothing.
"""

import dataclasses
import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.method.axis_matrices import (
    downsampling_matrix,
    largest_eigenvalue,
    noise_factor_matrix,
    range_basis,
    upsampling_matrix,
)
from tpdiff_jax.types import Array, Shape, Strides

Modes: TypeAlias = tuple[str, str, str]
"""A choice for time, height and width."""
AxisMatrices: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A matrix for time, height and width."""

_PRODUCTS = ("gf,...fhwc->...ghwc", "gh,...fhwc->...fgwc", "gw,...fhwc->...fhgc")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Resampling:
    """A separable linear map of videos: one matrix an axis.

    Args:
        matrices: of time, height and width, float64, each [out, in].
    """

    matrices: AxisMatrices

    @functools.cached_property
    def moved_axes(self) -> tuple[int, ...]:
        """The axes that it changes at all: of 0 time, 1 height, 2 width."""
        return tuple(
            axis
            for axis, matrix in enumerate(self.matrices)
            if not np.array_equal(matrix, np.eye(len(matrix)))
        )

    @functools.cached_property
    def sources(self) -> tuple[np.ndarray | None, ...]:
        """For each axis where every output copies one input, or is 0: its index, [out]; else None.

        The index of an output that is 0 is the number of inputs, one past the last.
        """
        return tuple(
            np.where(matrix.any(1), matrix.argmax(1), matrix.shape[1])
            if np.all((matrix == 0) | (matrix == 1)) and np.all(matrix.sum(1) <= 1)
            else None
            for matrix in self.matrices
        )

    def __call__(self, x: Array) -> Array:
        """Apply the map to frames, height and width, the fourth to second axis from the end.

        Args:
            x: [..., f_in, h_in, w_in, c].

        Returns:
            [..., f_out, h_out, w_out, c]; copies along an axis are a gather, exact in any
            precision, and everything else a product at the highest precision, in at least
            float32.
        """
        for axis in self.moved_axes:
            source = self.sources[axis]
            if source is not None:
                has_zeros = source.max() == x.shape[axis - 4]
                x = jnp.take(
                    x, source, axis=axis - 4, mode="fill" if has_zeros else "clip", fill_value=0
                )
                continue
            matrix = jnp.asarray(self.matrices[axis], jnp.promote_types(x.dtype, jnp.float32))
            x = jnp.einsum(_PRODUCTS[axis], matrix, x, precision=jax.lax.Precision.HIGHEST)
        return x


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NoiseFactor:
    """z + B (w - 1) B^T z: the noise that an upsampling of two or three axes left out.

    Args:
        bases: B of each axis, orthonormal columns, float64, each [fine, coarse].
        weights: w - 1, float64, [coarse f, coarse h, coarse w], or 1 for an axis that U leaves.
    """

    bases: AxisMatrices
    weights: np.ndarray

    def __call__(self, z: Array) -> Array:
        """Apply the map.

        Args:
            z: [..., f, h, w, c].

        Returns:
            The same shape, in at least float32.
        """
        dtype = jnp.promote_types(z.dtype, jnp.float32)
        weights = jnp.asarray(self.weights[..., None], dtype)
        return z + self._make(weights * self._known(z.astype(dtype)))

    @functools.cached_property
    def _make(self) -> Resampling:
        return Resampling(matrices=self.bases)

    @functools.cached_property
    def _known(self) -> Resampling:
        time, height, width = self.bases
        return Resampling(matrices=(time.T, height.T, width.T))


def downsampling(shape: Shape, strides: Strides, modes: Modes) -> Resampling:
    """D: the frames, rows and columns that a stage keeps of the full video.

    Args:
        shape: of the full video.
        strides: of the stage.
        modes: of each axis (see `downsampling_matrix`).

    Returns:
        D, from [..., F, H, W, c] to [..., f, h, w, c].

    Raises:
        ValueError: unknown mode.
    """
    time, height, width = (
        downsampling_matrix(*axis) for axis in zip(shape, strides, modes, strict=True)
    )
    return Resampling(matrices=(time, height, width))


def upsampling(
    shape: Shape, coarse: Strides, fine: Strides, downsample: Modes, upsample: Modes
) -> Resampling:
    """U: a stage's frames, rows and columns from those of the stage before it.

    Args:
        shape: of the full video.
        coarse: strides of the stage before.
        fine: strides of the stage.
        downsample: D of each axis.
        upsample: U of each axis (see `upsampling_matrix`).

    Returns:
        U, from [..., coarse f, h, w, c] to [..., fine f, h, w, c].

    Raises:
        ValueError: unknown mode.
    """
    axes = zip(shape, coarse, fine, downsample, upsample, strict=True)
    time, height, width = (upsampling_matrix(*axis) for axis in axes)
    return Resampling(matrices=(time, height, width))


def product_eigenvalue(upsample: Resampling) -> float:
    """L, the largest eigenvalue of U U^T: the product of those of the axes.

    Args:
        upsample: U.

    Returns:
        L; 1 where nothing is upsampled.
    """
    return float(np.prod([largest_eigenvalue(upsample.matrices[a]) for a in upsample.moved_axes]))


def noise_factor(upsample: Resampling, eigenvalue: float) -> Resampling | NoiseFactor:
    """(I - U U^T / L)^{1/2}: what turns white noise into the noise that U left out.

    Args:
        upsample: U.
        eigenvalue: L, at least the largest eigenvalue of U U^T.

    Returns:
        The symmetric root: of one axis, where U changes one only, one matrix; else by eigenbases.
    """
    moved = upsample.moved_axes or (0,)
    eyes = [np.eye(len(matrix)) for matrix in upsample.matrices]
    if len(moved) == 1:
        eyes[moved[0]] = noise_factor_matrix(upsample.matrices[moved[0]], eigenvalue)
        time, height, width = eyes
        return Resampling(matrices=(time, height, width))
    eigenvalues = [np.ones(1)] * 3
    for axis in moved:
        eyes[axis], eigenvalues[axis] = range_basis(upsample.matrices[axis])
    time, height, width = eyes
    c = np.einsum("f,h,w->fhw", *eigenvalues)
    weights = np.sqrt(np.maximum(1.0 - c / eigenvalue, 0.0)) - 1.0
    return NoiseFactor(bases=(time, height, width), weights=weights)
