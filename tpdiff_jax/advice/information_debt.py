"""What a jump leaves undecided that ordinary diffusion has decided by then.

At the noise-to-signal ratio nu_s where stage i starts, a noisy full-rate video tells

    I(x) = 1/2 log det(I + cov(x) / nu_s^2)      nats

of a Gaussian video x, added over coefficients. The stage starts from what its coarse frames show,
c_i in the place of x_i, so that it owes

    debt = (I(x_i) - I(c_i)) / (new frames)

nats for each frame that the jump adds, all its pixels together. Ordinary diffusion owes nothing at
any time. Below 0 a copy shows more difference between videos than the videos have. A debt is no
error: an exact predictor pays it. It says how much a network has to decide at once, in a window
that is short.
"""

import numpy as np

from tpdiff_jax.advice.clip_spectrum import ClipSpectrum
from tpdiff_jax.advice.exact_law import stage_matrices
from tpdiff_jax.method.pyramid import Pyramid
from tpdiff_jax.types import FloatArray


def information_debts(spectrum: ClipSpectrum, pyramid: Pyramid) -> tuple[float, ...]:
    """The debt of every jump.

    Args:
        spectrum: of the clips.
        pyramid: stages over time alone, of as many frames as the spectrum has.

    Returns:
        Nats per new frame, one number a jump: one less than the pyramid has stages.
    """
    debts = []
    for i, stage in enumerate(pyramid.stages[1:], start=1):
        own, known = stage_matrices(pyramid, i)
        new_frames = stage.num_frames - pyramid.stages[i - 1].num_frames
        told = [_told(spectrum, matrix, stage.nu_start) for matrix in (own, known)]
        debts.append((told[0] - told[1]) / new_frames)
    return tuple(debts)


def _told(spectrum: ClipSpectrum, matrix: FloatArray, nu: float) -> float:
    covs = matrix @ spectrum.covs @ matrix.T
    _, logs = np.linalg.slogdet(np.eye(len(matrix)) + covs / nu**2)
    return 0.5 * float(spectrum.counts @ logs)
