"""Frame rates as matrices: which frames a stage keeps, and how a stage's frames become the next's.

Downsampling D [f, F], upsampling U [fine, coarse] and the jump's noise factor [fine, fine] are
small linear maps over the frame axis, built here in float64 on the host and applied to videos by
`Resampling`. Nothing outside this file knows that the pooled axis is time.

A video of F frames keeps frames 0, r, 2r, ...: F / r of them when F is a multiple of r, and
1 + m / r of them, both ends included, for the causal length F = 1 + m of a video VAE whose first
latent frame is a single picture.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.method.choices import check_choice
from tpdiff_jax.types import Array

DOWNSAMPLES = ("stride", "mean")
UPSAMPLES = ("nearest", "nearest_next", "linear")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Resampling:
    """A linear map over the frame axis.

    Args:
        matrix: the map, float64, [f_out, f_in].
    """

    matrix: np.ndarray

    @functools.cached_property
    def source_frames(self) -> np.ndarray | None:
        """Where each output frame copies one input frame: its index, [f_out]; else None."""
        is_copy = bool(np.all((self.matrix != 0).sum(1) == 1) and np.all(self.matrix.max(1) == 1))
        return self.matrix.argmax(1) if is_copy else None

    def __call__(self, x: Array) -> Array:
        """Apply the map to the frame axis, the fourth from the end.

        Args:
            x: [..., f_in, h, w, c].

        Returns:
            [..., f_out, h, w, c]; a copy of frames is a gather, exact in any precision, and
            everything else a product at the highest precision.
        """
        if self.source_frames is not None:
            return jnp.take(x, self.source_frames, axis=-4, mode="clip")
        matrix = jnp.asarray(self.matrix, jnp.promote_types(x.dtype, jnp.float32))
        return jnp.einsum("gf,...fhwc->...ghwc", matrix, x, precision=jax.lax.Precision.HIGHEST)


def check_frame_strides(frame_strides: tuple[int, ...]) -> None:
    """Check that the frame rate rises from stage to stage, by whole factors, to the full rate.

    Raises:
        ValueError: the strides are not positive and falling, one does not divide the one before
            it, or the last is not 1.
    """
    pairs = zip(frame_strides[:-1], frame_strides[1:], strict=True)
    is_falling = all(coarse > fine > 0 and coarse % fine == 0 for coarse, fine in pairs)
    if not frame_strides or frame_strides[-1] != 1 or not is_falling:
        raise ValueError(
            f"pyramid.frame_strides is {tuple(frame_strides)}; allowed: whole numbers that fall "
            "to 1, each dividing the one before it, such as (4, 2, 1), (8, 2, 1) or (1,)"
        )


def check_num_frames(num_frames: int, largest_stride: int) -> None:
    """Check that every stage of a pyramid fits a video of this length.

    Raises:
        ValueError: the length is neither a multiple of the largest stride nor one more.
    """
    if num_frames < 1 or num_frames % largest_stride not in (0, 1 % largest_stride):
        raise ValueError(
            f"data.num_frames is {num_frames}; allowed: a multiple of the largest stride "
            f"{largest_stride} of pyramid.frame_strides, or one more (causal video latents)"
        )


def downsampling_matrix(num_frames: int, frame_stride: int, mode: str) -> np.ndarray:
    """D_r: one frame of every r.

    Args:
        num_frames: full-rate length F.
        frame_stride: r.
        mode: "stride" keeps frames 0, r, 2r, ...; "mean" averages the frames from each kept one
            up to the next (the last block of a causal length has one frame).

    Returns:
        float64, [f, F].

    Raises:
        ValueError: unknown mode.
    """
    check_choice("pyramid.downsample", mode, DOWNSAMPLES)
    if mode == "stride":
        return np.eye(num_frames)[::frame_stride]
    block = np.arange(num_frames) // frame_stride
    member = (np.arange(block[-1] + 1)[:, None] == block).astype(np.float64)
    return member / member.sum(1, keepdims=True)


def upsampling_matrix(
    num_frames: int, coarse_stride: int, fine_stride: int, downsample: str, upsample: str
) -> np.ndarray:
    """U: the frames of a stage from those of the stage before it, n = coarse / fine stride.

    Args:
        num_frames: full-rate length F.
        coarse_stride: stride of the stage before.
        fine_stride: stride of the stage, dividing coarse_stride.
        downsample: D of both stages: it gives the frames' positions.
        upsample: "nearest": fine frames kn ... kn + n - 1 copy coarse frame k. "nearest_next":
            those in ((k-1) n, k n] do, so that frame 0 stands alone, and frames past the last
            kept one repeat it. "linear": interpolation between positions, held at both ends.

    Returns:
        float64, [fine, coarse].

    Raises:
        ValueError: unknown mode.
    """
    check_choice("pyramid.upsample", upsample, UPSAMPLES)
    coarse_positions, fine_positions = (
        downsampling_matrix(num_frames, stride, downsample) @ np.arange(num_frames)
        for stride in (coarse_stride, fine_stride)
    )
    coarse, fine = len(coarse_positions), len(fine_positions)
    if upsample == "linear":
        columns = [np.interp(fine_positions, coarse_positions, unit) for unit in np.eye(coarse)]
        return np.stack(columns, axis=1)
    factor = coarse_stride // fine_stride
    shift = 0 if upsample == "nearest" else factor - 1
    source = np.minimum((np.arange(fine) + shift) // factor, coarse - 1)
    return np.eye(coarse)[source]


def largest_eigenvalue(upsampling: np.ndarray) -> float:
    """L, the largest eigenvalue of U U^T: for copies the most fine frames of one coarse frame."""
    return float(np.linalg.eigvalsh(upsampling.T @ upsampling)[-1])


def noise_factor_matrix(upsampling: np.ndarray, eigenvalue: float) -> np.ndarray:
    """(I - U U^T / L)^{1/2}: what turns white noise into the noise that U left out.

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
