"""What a jump leaves to the stage that it starts: two measures, in nats.

At the noise-to-signal ratio nu_s where stage i starts, a noisy Gaussian video x tells

    I(x) = 1/2 log det(I + cov(x) / nu_s^2)      nats

added over coefficients. The stage starts from what its coarse frames show, c_i in the place of x_i:

    visible detail = I(x_i - c_i) / (thousands of numbers in new frames)    what shows wrongly
    debt           = (I(x_i) - I(c_i)) / (new frames)                       what the start owes

The first is the same for frames of any size whose coefficients are alike. Both are 0 where the
noise hides the difference, and rise as a jump is made at less noise. An exact predictor adds any
detail; a network has to erase what shows wrongly and to decide what is owed, at once and in a short
window. The debt does not see what has to be erased: a copy at the wrong place tells as much of its
own frame as one at the right place, so that debts cannot be compared across upsamplings, and come
out below 0 where copies differ more than videos do.
"""

import itertools

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
    return tuple(
        _told(spectrum, own, nu, new) - _told(spectrum, known, nu, new)
        for own, known, nu, new in _jumps(pyramid)
    )


def visible_details(spectrum: ClipSpectrum, pyramid: Pyramid) -> tuple[float, ...]:
    """The visible detail of every jump, the larger, the less noise hides it.

    Args:
        spectrum: of the clips.
        pyramid: stages over time alone, of as many frames as the spectrum has.

    Returns:
        Nats per thousand numbers of new frames, one number a jump.
    """
    thousands = float(spectrum.counts.sum()) / 1000.0
    return tuple(
        _told(spectrum, own - known, nu, new) / thousands for own, known, nu, new in _jumps(pyramid)
    )


def _jumps(pyramid: Pyramid) -> list[tuple[FloatArray, FloatArray, float, int]]:
    """Of every jump: D_i, U D_{i-1}, nu_s and the number of new frames."""
    return [
        (*stage_matrices(pyramid, i), stage.nu_start, stage.num_frames - before.num_frames)
        for i, (before, stage) in enumerate(itertools.pairwise(pyramid.stages), start=1)
    ]


def _told(spectrum: ClipSpectrum, matrix: FloatArray, nu: float, new_frames: int) -> float:
    covs = matrix @ spectrum.covs @ matrix.T
    _, logs = np.linalg.slogdet(np.eye(len(matrix)) + covs / nu**2)
    return 0.5 * float(spectrum.counts @ logs) / new_frames
