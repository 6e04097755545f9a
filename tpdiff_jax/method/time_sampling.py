"""Where in a stage's window training looks: at all times alike, or most in its middle.

A time is drawn by its share q of the window, uniform in [0, 1), in the even time u of the
pyramid's time shift (`Pyramid.times_at`):

    uniform        share = q
    logit_normal   share = sigmoid(mean + std Phi^{-1}(q)),    Phi the normal law's distribution

so that logit(share) ~ N(mean, std^2): with one stage it is the draw of Stable Diffusion 3. Even
draws q, one in each b-th, stay stratified.

A time shift s comes after it, and adds log(s) to the logit of a time: one stage with shift s and
mean m draws as without shift and mean m + log(s).

Source: Esser et al., arXiv 2403.03206, Eq. 19.
"""

import dataclasses
from statistics import NormalDist

import jax
import numpy as np

from tpdiff_jax.checks import check_choice, check_range
from tpdiff_jax.types import Array

TIME_SAMPLINGS = ("uniform", "logit_normal")
MAX_LOGIT = 20
"""Largest size of a mean or deviation: sigmoid(20) is 1 in float32, more changes nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeSampling:
    """How training draws noise times within a stage.

    Args:
        name: "uniform" or "logit_normal".
        logit_mean: m, -20 to 20; above 0 draws more of the noisier half of a window.
        logit_std: s, above 0, up to 20; the smaller, the more of the middle.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """

    name: str = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0

    def __post_init__(self) -> None:
        check_choice("train.time_sampling", self.name, TIME_SAMPLINGS)
        check_range("train.logit_mean", self.logit_mean, -MAX_LOGIT, MAX_LOGIT)
        check_range("train.logit_std", self.logit_std, 0, MAX_LOGIT, "(]")

    def shares(self, quantile: Array) -> Array:
        """Shares of a window, 0 at its clean end, of uniform draws.

        Args:
            quantile: q in [0, 1], float32, any shape.

        Returns:
            Shares in [0, 1], of the shape of q; q itself where the draw is uniform.

        Source: arXiv 2403.03206, Eq. 19.
        """
        if self.name == "uniform":
            return quantile
        return jax.nn.sigmoid(self.logit_mean + self.logit_std * jax.scipy.special.ndtri(quantile))

    def middle_shares(self, number: int) -> np.ndarray:
        """Shares at the middles of so many equal parts of [0, 1), on the host.

        Args:
            number: of parts.

        Returns:
            Rising shares in (0, 1), float64, [number].
        """
        quantile = (np.arange(number) + 0.5) / number
        if self.name == "uniform":
            return quantile
        logit = self.logit_mean + self.logit_std * np.vectorize(NormalDist().inv_cdf)(quantile)
        return 0.5 * (1.0 + np.tanh(0.5 * logit))


UNIFORM = TimeSampling()
