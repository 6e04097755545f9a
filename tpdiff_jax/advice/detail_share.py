"""How much of a video its coarse frames cannot show.

    share = E |x - U D x|^2 / E |x|^2 = tr((I - U D) C (I - U D)^T) / tr C

with x a clip less the mean over clips and frames, and C its covariance over frames, all pixels
together. It is 0 for clips that stand still. For clips whose frames have nothing in common,
repetition by r has 2 (1 - 1/r): a copy is worse than nothing. The cosines leave the least, what no
frame rate 1/r can hold, 1 - 1/r there; new frames that start from nothing leave 1 - 1/r always.
"""

import numpy as np

from tpdiff_jax.advice.clip_spectrum import ClipSpectrum
from tpdiff_jax.method.axis_matrices import downsampling_matrix, upsampling_matrix
from tpdiff_jax.types import FloatArray

SHOWN_UPSAMPLES = ("nearest", "linear", "dct", "insert")
SHOWN_STRIDES = (2, 4, 8)


def fitting_length(num_frames: int, stride: int) -> int:
    """The longest start of a clip that a stride fits: a multiple of it, or one more.

    Args:
        num_frames: F.
        stride: r.

    Returns:
        A number of frames up to F; 0 where not even two coarse frames fit.
    """
    if num_frames < 2 * stride:
        return stride + 1 if num_frames > stride else 0
    return num_frames - max(num_frames % stride - 1, 0)


def shown_matrix(num_frames: int, stride: int, upsample: str) -> FloatArray:
    """U D: a clip as its coarse frames show it.

    Args:
        num_frames: F, a multiple of the stride or one more.
        stride: r.
        upsample: one of `SHOWN_UPSAMPLES`.

    Returns:
        float64, [F, F].

    Raises:
        ValueError: unknown upsampling.
    """
    mode = "dct" if upsample == "dct" else "stride"
    down = downsampling_matrix(num_frames, stride, mode)
    return upsampling_matrix(num_frames, stride, 1, mode, upsample) @ down


def detail_share(cov: FloatArray, stride: int, upsample: str) -> float | None:
    """Share of the variance that x - U D x holds.

    Args:
        cov: C, covariance over frames, [F, F].
        stride: r.
        upsample: one of `SHOWN_UPSAMPLES`.

    Returns:
        0 or more, 0 where nothing varies; None where clips are too short for the stride.

    Raises:
        ValueError: unknown upsampling.
    """
    if not (length := fitting_length(len(cov), stride)):
        return None
    cov = cov[:length, :length]
    if not (variance := float(np.trace(cov))) > 0.0:
        return 0.0
    left = np.eye(length) - shown_matrix(length, stride, upsample)
    return float(np.trace(left @ cov @ left.T)) / variance


def detail_shares(spectrum: ClipSpectrum) -> dict[str, dict[str, float | None]]:
    """The share of every upsampling at every stride, by their names.

    Args:
        spectrum: of the clips.

    Returns:
        Upsampling -> stride, as text -> share; None where clips are too short.
    """
    return {
        upsample: {
            str(stride): detail_share(spectrum.total_cov, stride, upsample)
            for stride in SHOWN_STRIDES
        }
        for upsample in SHOWN_UPSAMPLES
    }
