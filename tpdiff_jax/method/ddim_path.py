"""The DDIM path: signal and noise scales of a published beta schedule."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from tpdiff_jax.checks import check_choice, whole_number
from tpdiff_jax.method.scales import Scales, at_least_float32, make_scales
from tpdiff_jax.types import Array, ArrayLike

BETAS = ("scaled_linear", "linear")


FINAL_ALPHAS = ("one", "first")


DDIM_PREDICTIONS = ("v", "eps", "data")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIMPath:
    """DDIM: gamma_t = sqrt(abar_t), sigma_t = sqrt(1 - abar_t), abar from a beta schedule.

    The schedule's grid points k = 0, 1, ... sit at t_k = (k + 1) / num_grid_points, and gamma is
    interpolated linearly between them. With `zero_terminal_snr`, sqrt(abar) is shifted and
    stretched so that it keeps its first value and ends at 0 (arXiv 2305.08891, Algorithm 1).

    Args:
        betas: "scaled_linear" (Stable Diffusion: linear in the square root) or "linear"
            (AnimateDiff).
        beta_start: first beta, in (0, 1).
        beta_end: last beta, in (0, 1), at least beta_start.
        num_grid_points: length of the schedule, at least 2.
        zero_terminal_snr: end at pure noise, gamma_1 = 0.
        final_alpha: abar at t = 0: "one", or "first" for the schedule's first (diffusers calls
            this `set_alpha_to_one=False`).
        prediction: what the network predicts, "v", "eps" or "data" (a_i).

    Raises:
        ValueError: a value out of range, or eps prediction with zero terminal SNR: at gamma = 0
            the noise says nothing about the data.

    Source: arXiv 2503.09566, Eq. 6; arXiv 2112.10752 for the betas.
    """

    betas: str = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    num_grid_points: int = 1000
    zero_terminal_snr: bool = False
    final_alpha: str = "one"
    prediction: str = "v"

    def __post_init__(self) -> None:
        check_choice("path.betas", self.betas, BETAS)
        check_choice("path.final_alpha", self.final_alpha, FINAL_ALPHAS)
        check_choice("path.prediction", self.prediction, DDIM_PREDICTIONS)
        if not 0.0 < self.beta_start < 1.0:
            raise ValueError(f"path.beta_start is {self.beta_start}; allowed: above 0, below 1")
        if not self.beta_start <= self.beta_end < 1.0:
            raise ValueError(
                f"path.beta_end is {self.beta_end}; allowed: at least path.beta_start "
                f"({self.beta_start}), below 1"
            )
        whole_number("path.num_grid_points", self.num_grid_points, at_least=2)
        if self.zero_terminal_snr and self.prediction == "eps":
            raise ValueError(
                "path.prediction is 'eps' with path.zero_terminal_snr: at t = 1 the signal is 0 "
                "and the noise says nothing about the data; allowed: 'v', 'data', or "
                "'eps' without zero terminal SNR"
            )

    def gamma(self, t: ArrayLike) -> Array:
        """Signal scale, sqrt(abar_t).

        Args:
            t: noise time in [0, 1], of any shape.

        Returns:
            gamma_t, of the shape of t.
        """
        return _interpolate(t, self, lambda gammas: gammas)

    def sigma(self, t: ArrayLike) -> Array:
        """Noise scale (a standard deviation), sqrt(1 - gamma_t^2).

        Args:
            t: noise time in [0, 1], of any shape.

        Returns:
            sigma_t, of the shape of t.
        """
        # 1 - gamma is interpolated, not subtracted: near the data its float32 digits would cancel.
        lost = _interpolate(t, self, lambda gammas: 1.0 - gammas)
        return jnp.sqrt(lost * (2.0 - lost))

    def nu(self, t: ArrayLike) -> Array:
        """Noise-to-signal ratio, sigma_t / gamma_t.

        Args:
            t: noise time in [0, 1], of any shape.

        Returns:
            nu_t, of the shape of t; infinite at t = 1 with zero terminal SNR.
        """
        return self.sigma(t) / self.gamma(t)

    def network_time(self, t: ArrayLike) -> Array:
        """Index of the grid point at t, max(num_grid_points t - 1, 0).

        Args:
            t: noise time in [0, 1], of any shape.

        Returns:
            Network time in [0, num_grid_points - 1], of the shape of t.
        """
        return jnp.maximum(self.num_grid_points * at_least_float32(t) - 1.0, 0.0)

    def host_scales(self, t: float) -> Scales:
        """The path at one noise time, in float64.

        Args:
            t: noise time in [0, 1].

        Returns:
            gamma, sigma and nu; nu is infinite where gamma is 0.
        """
        grid, gammas = _ddim_grid(self)
        gamma = float(np.interp(t, grid, gammas))
        lost = float(np.interp(t, grid, 1.0 - gammas))
        return make_scales(gamma, math.sqrt(lost * (2.0 - lost)))

    def t_from_nu(self, nu: float) -> float:
        """The noise time whose noise-to-signal ratio is nu, from gamma = (1 + nu^2)^(-1/2).

        Args:
            nu: noise-to-signal ratio, between those at t = 0 and t = 1.

        Returns:
            Noise time in [0, 1].

        Raises:
            ValueError: the path does not reach nu.
        """
        lowest, highest = self.host_scales(0.0).nu, self.host_scales(1.0).nu
        if not lowest <= nu <= highest:
            raise ValueError(f"nu is {nu}; this path reaches {lowest:.6g} to {highest:.6g}")
        grid, gammas = _ddim_grid(self)
        return float(np.interp(1.0 / math.hypot(1.0, nu), gammas[::-1], grid[::-1]))


def _interpolate(
    t: ArrayLike, path: DDIMPath, of_gammas: Callable[[np.ndarray], np.ndarray]
) -> Array:
    """A function of gamma, between its grid points; the type of t, whatever the grid's."""
    t, (grid, gammas) = at_least_float32(t), _ddim_grid(path)
    return jnp.interp(t, jnp.asarray(grid), jnp.asarray(of_gammas(gammas))).astype(t.dtype)


@functools.cache
def _ddim_grid(path: DDIMPath) -> tuple[np.ndarray, np.ndarray]:
    """Noise times 0, t_0, t_1, ..., 1 and gamma at each, in float64."""
    num = path.num_grid_points
    if path.betas == "scaled_linear":
        betas = np.linspace(path.beta_start**0.5, path.beta_end**0.5, num) ** 2
    else:
        betas = np.linspace(path.beta_start, path.beta_end, num)
    gammas = np.sqrt(np.cumprod(1.0 - betas))
    if path.zero_terminal_snr:
        gammas = gammas[0] * (gammas - gammas[-1]) / (gammas[0] - gammas[-1])
    gamma_0 = 1.0 if path.final_alpha == "one" else gammas[0]
    return np.arange(num + 1) / num, np.concatenate([[gamma_0], gammas])
