"""One axis of a video as matrices: what a stage keeps of it, and how it grows from stage to stage.

Downsampling D [kept, full] and upsampling U [fine, coarse] of one axis (time, height or width),
in float64 on the host. `resampling` applies one for each axis, one after another.

An axis of length n keeps 0, r, 2r, ...: n / r of them where n is a multiple of r, and 1 + m / r,
both ends included, for the causal length n = 1 + m of a video VAE whose first latent frame is a
single picture. "dct" keeps as many values, none of which is a frame, row or column as it was: the
axis without its highest frequencies, read off at that many even places.
"""

import numpy as np

from tpdiff_jax.checks import check_choice

DOWNSAMPLES = ("stride", "mean", "dct")
UPSAMPLES = ("nearest", "nearest_next", "linear", "dct", "insert")
UPSAMPLES_SPACE = ("nearest", "linear", "dct")
"""Height and width have no first row that stands alone, as a causal video's first frame does."""


def downsampling_matrix(length: int, stride: int, mode: str) -> np.ndarray:
    """D_r: one of every r along an axis.

    Args:
        length: full length n of the axis.
        stride: r.
        mode: "stride" keeps 0, r, 2r, ...; "mean" averages from each kept one up to the next (the
            last block of a causal length has one member); "dct" keeps the lowest coefficients
            of the orthonormal DCT-II over the axis, as a shorter axis on which a constant keeps
            its value.

    Returns:
        float64, [kept, n].

    Raises:
        ValueError: unknown mode.

    Source: arXiv 2503.09566, Section 3.2; arXiv 2605.18736 for "dct", there in space.
    """
    check_choice("pyramid.downsample", mode, DOWNSAMPLES)
    if mode == "dct":
        return _dct_resampling(length, kept_length(length, stride))
    if mode == "stride":
        return np.eye(length)[::stride]
    block = np.arange(length) // stride
    member = (np.arange(block[-1] + 1)[:, None] == block).astype(np.float64)
    return member / member.sum(1, keepdims=True)


def upsampling_matrix(
    length: int, coarse_stride: int, fine_stride: int, downsample: str, upsample: str
) -> np.ndarray:
    """U: an axis of a stage from that of the stage before it, n = coarse / fine stride.

    Args:
        length: full length of the axis.
        coarse_stride: stride of the stage before.
        fine_stride: stride of the stage, dividing coarse_stride.
        downsample: D of both stages: it gives the positions.
        upsample: "nearest": fine frames kn ... kn + n - 1 copy coarse frame k. "nearest_next":
            those in ((k-1) n, k n] do, so that frame 0 stands alone, and frames past the last
            kept one repeat it. "linear": interpolation between positions, held at both ends.
            "insert": kept frames stay where they are, and rows of zeros between them: what is
            there instead is the affine part of `Jump.known`.
            "dct": zeros for the DCT-II coefficients that the stage before lacks, so that D of
            what it makes is the coarse axis again.

    Returns:
        float64, [fine, coarse].

    Raises:
        ValueError: unknown mode.

    Source: arXiv 2503.09566, Section 3.3 for "nearest"; arXiv 2410.05954 for "nearest_next";
    arXiv 2605.18736 for "dct", there in space.
    """
    check_choice("pyramid.upsample", upsample, UPSAMPLES)
    if upsample == "dct":
        coarse, fine = (kept_length(length, stride) for stride in (coarse_stride, fine_stride))
        return _dct_resampling(coarse, fine)
    if upsample == "insert":
        kept = np.eye(kept_length(length, coarse_stride))
        matrix = np.zeros((kept_length(length, fine_stride), len(kept)))
        matrix[:: coarse_stride // fine_stride] = kept
        return matrix
    coarse_positions, fine_positions = (
        axis_positions(length, stride, downsample) for stride in (coarse_stride, fine_stride)
    )
    coarse, fine = len(coarse_positions), len(fine_positions)
    if upsample == "linear":
        columns = [np.interp(fine_positions, coarse_positions, unit) for unit in np.eye(coarse)]
        return np.stack(columns, axis=1)
    factor = coarse_stride // fine_stride
    shift = 0 if upsample == "nearest" else factor - 1
    source = np.minimum((np.arange(fine) + shift) // factor, coarse - 1)
    return np.eye(coarse)[source]


def kept_length(length: int, stride: int) -> int:
    """How many of an axis a stage keeps: those at 0, r, 2r, ...

    Args:
        length: full length n of the axis.
        stride: r.

    Returns:
        n / r, rounded up.
    """
    return -(-length // stride)


def axis_positions(length: int, stride: int, downsample: str) -> np.ndarray:
    """Where the kept ones of an axis stand in the full one: D applied to 0, 1, ...

    For "dct" the k-th of m is the smooth axis's value at (k + 1/2) n / m - 1/2, where the basis
    functions of both lengths agree: the centre of the k-th of m even blocks.

    Args:
        length: full length n of the axis.
        stride: r.
        downsample: D.

    Returns:
        float64, [kept].

    Raises:
        ValueError: unknown mode.
    """
    if downsample == "dct":
        kept = kept_length(length, stride)
        return (np.arange(kept) + 0.5) * (length / kept) - 0.5
    return downsampling_matrix(length, stride, downsample) @ np.arange(length)


def _dct_resampling(length_in: int, length_out: int) -> np.ndarray:
    """sqrt(out / in) C_out^T C_in on the coefficients that both lengths have, [out, in]."""
    if length_in == length_out:
        return np.eye(length_in)  # an axis that stays is left alone to the last bit
    both = min(length_in, length_out)
    matrix = cosine_basis(length_out)[:both].T @ cosine_basis(length_in)[:both]
    return matrix * np.sqrt(length_out / length_in)


def cosine_basis(length: int) -> np.ndarray:
    """C, the orthonormal DCT-II: row j is sqrt(2/n) cos(pi j (k + 1/2) / n), row 0 sqrt(1/n).

    Args:
        length: n.

    Returns:
        float64, [n, n].
    """
    rows, places = np.arange(length)[:, None], np.arange(length) + 0.5
    basis = np.sqrt(2.0 / length) * np.cos(np.pi * rows * places / length)
    basis[0] = np.sqrt(1.0 / length)
    return basis


def range_basis(upsampling: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What U can make: orthonormal eigenvectors B of U U^T and their eigenvalues above 0.

    Args:
        upsampling: U, with independent columns, [fine, coarse].

    Returns:
        B [fine, coarse] and the eigenvalues [coarse], rising, float64.
    """
    eigenvalues, vectors = np.linalg.eigh(upsampling.T @ upsampling)
    return upsampling @ vectors / np.sqrt(eigenvalues), eigenvalues


def largest_eigenvalue(upsampling: np.ndarray) -> float:
    """L of one axis, the largest eigenvalue of U U^T: for copies, the most of one coarse frame.

    Args:
        upsampling: U, [fine, coarse].

    Returns:
        L.
    """
    return float(np.linalg.eigvalsh(upsampling.T @ upsampling)[-1])


def noise_factor_matrix(upsampling: np.ndarray, eigenvalue: float) -> np.ndarray:
    """(I - U U^T / L)^{1/2} of one axis: from white noise to the noise that U left out.

    From U^T U = V diag(c) V^T:

        (I - U U^T / L)^{1/2} = I + (U V) diag((sqrt(1 - c / L) - 1) / c) (U V)^T

    For repetition by n, with L = n, this is I minus the block mean.

    Args:
        upsampling: U, with independent columns, [fine, coarse].
        eigenvalue: L, at least the largest eigenvalue of U U^T.

    Returns:
        The symmetric root, float64, [fine, fine].
    """
    c, v = np.linalg.eigh(upsampling.T @ upsampling)
    weights = (np.sqrt(np.maximum(1.0 - c / eigenvalue, 0.0)) - 1.0) / c
    basis = upsampling @ v
    return np.eye(len(upsampling)) + (basis * weights) @ basis.T
