"""Noise paths x_t = gamma_t x_0 + sigma_t eps: how signal fades and noise grows with noise time t.

t runs from 0 (data) to 1 (noise). Two paths: flow matching, straight in t, and DDIM, whose
signal scale follows a published beta schedule. Whatever a compiled program needs
(`gamma`, `sigma`, `nu`, `network_time`) takes numbers and returns jax arrays of at least float32;
the few numbers that a pyramid is made of are computed once, on the host, in float64
(`host_scales`, `t_from_nu`).
"""

import dataclasses
import math
from typing import TypeAlias

from tpdiff_jax.checks import check_choice
from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.scales import Scales, at_least_float32, make_scales
from tpdiff_jax.types import Array, ArrayLike

FLOW_PREDICTIONS = ("velocity", "data")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowPath:
    """Flow matching: gamma_t = 1 - t, sigma_t = t.

    Args:
        prediction: what the network predicts: "velocity", or "data", the stage's clean video, from
            which the velocity follows (see `stage_line`).

    Raises:
        ValueError: an unknown prediction.

    Source: arXiv 2503.09566, Eq. 4.
    """

    prediction: str = "velocity"

    def __post_init__(self) -> None:
        check_choice("path.prediction", self.prediction, FLOW_PREDICTIONS)

    def gamma(self, t: ArrayLike) -> Array:
        """Signal scale, 1 - t.

        Args:
            t: noise time in [0, 1], of any shape.

        Returns:
            gamma_t, of the shape of t.
        """
        return 1.0 - at_least_float32(t)

    def sigma(self, t: ArrayLike) -> Array:
        """Noise scale (a standard deviation), t.

        Args:
            t: noise time in [0, 1], of any shape.

        Returns:
            sigma_t, of the shape of t.
        """
        return at_least_float32(t)

    def nu(self, t: ArrayLike) -> Array:
        """Noise-to-signal ratio, t / (1 - t).

        Args:
            t: noise time in [0, 1], of any shape.

        Returns:
            nu_t, of the shape of t; infinite at t = 1.
        """
        return self.sigma(t) / self.gamma(t)

    def network_time(self, t: ArrayLike) -> Array:
        """Noise time in the unit of published flow models, 1000 t.

        Args:
            t: noise time in [0, 1], of any shape.

        Returns:
            Network time in [0, 1000], of the shape of t.
        """
        return 1000.0 * at_least_float32(t)

    def host_scales(self, t: float) -> Scales:
        """The path at one noise time, in float64.

        Args:
            t: noise time in [0, 1].

        Returns:
            gamma, sigma and nu; nu is infinite at t = 1.
        """
        return make_scales(1.0 - t, t)

    def t_from_nu(self, nu: float) -> float:
        """The noise time whose noise-to-signal ratio is nu: t = nu / (1 + nu).

        Args:
            nu: noise-to-signal ratio, 0 to infinity.

        Returns:
            Noise time in [0, 1].

        Raises:
            ValueError: nu is negative or not a number.
        """
        if not nu >= 0.0:
            raise ValueError(f"nu is {nu}; the flow path reaches 0 to infinity")
        return 1.0 if math.isinf(nu) else nu / (1.0 + nu)


Path: TypeAlias = FlowPath | DDIMPath
"""Any noise path; the two differ in `prediction` and in the coordinates their lines are straight
in (see `stage_line`)."""
