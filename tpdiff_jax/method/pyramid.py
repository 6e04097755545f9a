"""What a pyramid is made of: its stages, the jumps between them, and what the network is asked.

Within a stage noise times are drawn, and stepped through, evenly in u, where

    t = s u / (1 + (s - 1) u)

is the time shift s of flow models for large videos: above 1 it spends more of them near the noise,
1 leaves them even in t. Windows do not move with it: their ends are noise times t. Training may
draw more of a window's middle (`time_sampling`): the shift then comes after that draw.

`stages` makes pyramids. Training targets, samplers and jumps read all numbers from here: they are
computed once.
"""

import dataclasses
import functools
import math

import chex
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.checks import check_choice, check_range
from tpdiff_jax.method.paths import Path
from tpdiff_jax.method.resampling import NoiseFactor, Resampling
from tpdiff_jax.method.scales import at_least_float32, shift_time, unshift_time
from tpdiff_jax.method.time_sampling import UNIFORM, TimeSampling
from tpdiff_jax.types import Array, ArrayLike, Positions, Shape, Strides

TARGET_UNITS = ("time", "stage")
TIME_CONDITIONINGS = ("noise_time", "stage_slices")
STAGE_WEIGHTINGS = ("raw", "equal")
LINES = ("stagewise", "marginal")
MAX_TIME_SHIFT = 1e6


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Jump:
    """How a stage starts from the end point of the one before it (see `stage_transition`).

    Args:
        upsample: U, from the stage before to this one, linear.
        eigenvalue: L, at least the largest eigenvalue of U U^T; with an overlap that times it.
        scale: gamma_{s_i} / gamma_{e_{i-1}}.
        noise_factor: (I - U U^T / L)^{1/2}.
        data_mean: mu, of every channel, or one for each.
    """

    upsample: Resampling
    eigenvalue: float
    scale: float
    noise_factor: Resampling | NoiseFactor
    data_mean: tuple[float, ...] = (0.0,)

    @functools.cached_property
    def _new_share(self) -> np.ndarray:
        """1 - U 1: 1 where U makes nothing, 0 where it keeps a constant, [f, h, w]."""
        sums = (matrix.sum(1) for matrix in self.upsample.matrices)
        return np.round(1.0 - np.einsum("f,h,w->fhw", *sums), 9)

    def known(self, x: Array, gamma: float = 1.0) -> Array:
        """What a stage knows from the video of the one before it: U x + gamma (1 - U 1) mu.

        Of all U only "insert" leaves places that it makes nothing for; there the data's mean
        stands. Noise has none: it takes `upsample` alone.

        Args:
            x: video or end point of the stage before, floating-point, [b, *shape before, c].
            gamma: its signal scale.

        Returns:
            [b, *shape, c].

        Raises:
            ValueError: the mean is not of one channel or of c.
        """
        known = self.upsample(x)
        if not any(self.data_mean) or not self._new_share.any():
            return known
        if len(self.data_mean) not in (1, x.shape[-1]):
            raise ValueError(
                f"pyramid.data_mean is {self.data_mean}; allowed: one number for all channels, or "
                f"one for each of {x.shape[-1]}"
            )
        offset = gamma * self._new_share[..., None] * np.asarray(self.data_mean)
        return known + jnp.asarray(offset, known.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One stage: its shape, its window of noise times, and its jump (None for stage 0).

    Args:
        index: 0 for the coarsest stage.
        strides: this stage keeps one frame, row and column in so many.
        shape: its frames f, height h and width w.
        t_start: noise time s_i at which sampling enters the stage (the noisier end).
        t_end: noise time e_i at which sampling leaves it, below t_start.
        gamma_start: signal scale at t_start; likewise sigma_start, and nu_start (may be inf).
        gamma_end: signal scale at t_end; likewise sigma_end and nu_end.
        positions: what the network is given, float32, [f], [h] and [w].
        downsample: D, from the full video to this stage's.
        jump: from the stage before; None for stage 0.
    """

    index: int
    strides: Strides
    shape: Shape
    t_start: float
    t_end: float
    gamma_start: float
    sigma_start: float
    nu_start: float
    gamma_end: float
    sigma_end: float
    nu_end: float
    positions: Positions
    downsample: Resampling
    jump: Jump | None

    @property
    def num_frames(self) -> int:
        """Its number of frames f."""
        return self.shape[0]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pyramid:
    """A noise path cut into stages, and what the network is asked in each; see `make_pyramid`."""

    path: Path
    stages: tuple[Stage, ...]
    target_unit: str = "time"
    time_conditioning: str = "noise_time"
    stage_weighting: str = "raw"
    time_shift: float = 1.0
    time_sampling: TimeSampling = UNIFORM
    line: str = "stagewise"
    coarse_noise: float = 0.0

    def __post_init__(self) -> None:
        # Beyond, float32 no longer tells s from s - 1, or the times of a stage from one another.
        check_range("pyramid.time_shift", self.time_shift, 1 / MAX_TIME_SHIFT, MAX_TIME_SHIFT)
        check_choice("pyramid.target_unit", self.target_unit, TARGET_UNITS)
        check_choice("pyramid.time_conditioning", self.time_conditioning, TIME_CONDITIONINGS)
        check_choice("pyramid.stage_weighting", self.stage_weighting, STAGE_WEIGHTINGS)
        check_choice("pyramid.line", self.line, LINES)
        check_range("pyramid.coarse_noise", self.coarse_noise, 0, math.inf, "[)")
        if self.coarse_noise > 0.0 and self.line == "marginal":
            raise ValueError(
                f"pyramid.coarse_noise is {self.coarse_noise:g} with pyramid.line 'marginal', "
                "whose training does not see the stage before; allowed: 0"
            )
        if self.target_unit == "stage" and self.path.prediction != "velocity":
            raise ValueError(
                "pyramid.target_unit is 'stage', which is a unit of velocity, with "
                f"path.prediction {self.path.prediction!r}; allowed: 'time'"
            )

    @property
    def num_stages(self) -> int:
        """K."""
        return len(self.stages)

    @property
    def shape(self) -> Shape:
        """Frames, height and width of the full video."""
        return self.stages[-1].shape

    @property
    def num_frames(self) -> int:
        """Length F of the full-rate video."""
        return self.shape[0]

    def stage(self, stage_index: int, *, first: int = 0) -> Stage:
        """One stage by its index; an index from the end would be another stage's in silence.

        Args:
            stage_index: i.
            first: the first stage allowed; 1 where a stage before it is needed.

        Returns:
            Stage i.

        Raises:
            ValueError: there is no such stage.
        """
        if not first <= stage_index < self.num_stages:
            raise ValueError(
                f"stage_index is {stage_index}; allowed: {first} to {self.num_stages - 1}, the "
                f"stages{' that another one precedes' if first else ''}"
            )
        return self.stages[stage_index]

    def check_videos(self, x_0: Array) -> None:
        """Refuse what is no batch of full videos of this pyramid.

        Args:
            x_0: full videos, [b, F, H, W, c].

        Raises:
            ValueError: whole numbers (as uint8 pixels are), which are not yet on the noise's
                scale.
            AssertionError: another number of frames, height or width.
        """
        if not jnp.issubdtype(x_0.dtype, jnp.floating):
            raise ValueError(
                f"x_0 has type {x_0.dtype}; allowed: floating-point videos, on the scale that the "
                "noise of standard deviation 1 is meant for, such as -1 to 1"
            )
        chex.assert_shape(x_0, (None, *self.shape, None))

    def times_at(self, stage_index: int, share: ArrayLike) -> Array | np.ndarray:
        """Noise times at shares of a stage's window, as the time shift spaces them.

            u = u_e + (u_s - u_e) share,   t = s u / (1 + (s - 1) u)

        Args:
            stage_index: i.
            share: 0 at e_i to 1 at s_i, any shape.

        Returns:
            Noise times, of the shape and library of the shares.

        Raises:
            ValueError: there is no such stage.

        Source: Esser et al., arXiv 2403.03206, Eq. 23 (the shift s is sqrt(m / n) there).
        """
        stage, shift = self.stage(stage_index), self.time_shift
        u_start, u_end = (unshift_time(t, shift) for t in (stage.t_start, stage.t_end))
        return shift_time(u_end + (u_start - u_end) * share, shift)

    def network_time(self, stage_index: int, t: ArrayLike) -> Array:
        """What the network is told of noise time t, in the published models' unit.

        "noise_time" tells it t itself: windows of neighbouring stages overlap, shape and
        positions tell them apart. "stage_slices" maps [e_i, s_i] onto [e_i, e_{i-1}] (with
        e_{-1} = 1), so that stages share no time.

        Args:
            stage_index: i.
            t: noise time within the stage's window, any shape.

        Returns:
            Network time, of the shape of t, in at least float32.

        Raises:
            ValueError: there is no such stage.

        Source: arXiv 2410.05954 (Pyramid-Flow) for the slices.
        """
        stage, t = self.stage(stage_index), at_least_float32(t)
        if self.time_conditioning == "stage_slices" and stage_index > 0:
            previous = self.stages[stage_index - 1]
            share = (previous.t_end - stage.t_end) / (stage.t_start - stage.t_end)
            t = stage.t_end + share * (t - stage.t_end)
        return self.path.network_time(t)
