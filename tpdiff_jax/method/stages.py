"""The pyramid's stages: their frames, their noise-time windows, and the jumps between them.

Stage 0 is the coarsest and the first that sampling runs; stage K-1 has every frame. The window
ends e_i cut [0, 1] in proportion to the stage fractions. The start of a later stage is not the
end of the one before it: upsampling leaves correlated noise, and making it white takes fresh
noise, so the next stage starts noisier, at

    nu_{s_i} = sqrt(L) nu_{e_{i-1}},        L the largest eigenvalue of U U^T

the least start at which the missing covariance sigma_s^2 I - (gamma_s/gamma_e)^2 sigma_e^2 U U^T
is one. Training targets, samplers and jumps read all numbers from here: they are computed once.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from tpdiff_jax.method.choices import check_choice
from tpdiff_jax.method.paths import Path
from tpdiff_jax.method.temporal_pyramid import (
    UPSAMPLES,
    Resampling,
    check_frame_strides,
    check_num_frames,
    downsampling_matrix,
    largest_eigenvalue,
    noise_factor_matrix,
    upsampling_matrix,
)
from tpdiff_jax.types import Array, ArrayLike

FRAME_POSITIONS = ("consistent", "naive")
TARGET_UNITS = ("time", "stage")
TIME_CONDITIONINGS = ("noise_time", "stage_slices")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Jump:
    """How a stage starts from the end point of the one before it (see `stage_transition`).

    Args:
        upsample: U, from the frames of the stage before to this stage's.
        eigenvalue: L, at least the largest eigenvalue of U U^T.
        scale: gamma_{s_i} / gamma_{e_{i-1}}.
        noise_factor: (I - U U^T / L)^{1/2}.
    """

    upsample: Resampling
    eigenvalue: float
    scale: float
    noise_factor: Resampling


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One stage: its frames, its window of noise times, and its jump (None for stage 0).

    Args:
        index: 0 for the coarsest stage.
        frame_stride: this stage keeps one frame in `frame_stride`.
        num_frames: its number of frames f.
        t_start: noise time s_i at which sampling enters the stage (the noisier end).
        t_end: noise time e_i at which sampling leaves it, below t_start.
        gamma_start: signal scale at t_start; likewise sigma_start, and nu_start (may be inf).
        gamma_end: signal scale at t_end; likewise sigma_end and nu_end.
        frame_positions: positions that the network is given, float32, [f].
        downsample: D, from the full-rate video to this stage's frames.
        jump: from the stage before; None for stage 0.
    """

    index: int
    frame_stride: int
    num_frames: int
    t_start: float
    t_end: float
    gamma_start: float
    sigma_start: float
    nu_start: float
    gamma_end: float
    sigma_end: float
    nu_end: float
    frame_positions: np.ndarray
    downsample: Resampling
    jump: Jump | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pyramid:
    """A noise path cut into stages, and what the network is asked in each; see `make_pyramid`."""

    path: Path
    stages: tuple[Stage, ...]
    target_unit: str = "time"
    time_conditioning: str = "noise_time"

    def __post_init__(self) -> None:
        check_choice("pyramid.target_unit", self.target_unit, TARGET_UNITS)
        check_choice("pyramid.time_conditioning", self.time_conditioning, TIME_CONDITIONINGS)
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
    def num_frames(self) -> int:
        """Length F of the full-rate video."""
        return self.stages[-1].num_frames

    def network_time(self, stage_index: int, t: ArrayLike) -> Array:
        """What the network is told of noise time t, in the published models' unit.

        "noise_time" tells it t itself: windows of neighbouring stages overlap, frame count and
        positions tell them apart. "stage_slices" maps [e_i, s_i] onto [e_i, e_{i-1}] (with
        e_{-1} = 1), so that stages share no time.

        Args:
            stage_index: i.
            t: noise time within the stage's window, any shape.

        Returns:
            Network time, of the shape of t.

        Source: arXiv 2410.05954 (Pyramid-Flow) for the slices.
        """
        t = jnp.asarray(t)
        if self.time_conditioning == "stage_slices" and stage_index > 0:
            stage, previous = self.stages[stage_index], self.stages[stage_index - 1]
            share = (previous.t_end - stage.t_end) / (stage.t_start - stage.t_end)
            t = stage.t_end + share * (t - stage.t_end)
        return self.path.network_time(t)


def make_pyramid(
    path: Path,
    *,
    num_frames: int,
    frame_strides: Sequence[int] = (4, 2, 1),
    stage_fractions: Sequence[float] = (),
    downsample: str = "stride",
    upsample: str = "nearest",
    frame_positions: str = "consistent",
    target_unit: str = "time",
    time_conditioning: str = "noise_time",
    other_num_frames: Sequence[int] = (),
) -> Pyramid:
    """Cut a noise path into stages of rising frame rate.

    Args:
        path: the noise path.
        num_frames: full-rate length F: a multiple of the largest stride, or one more.
        frame_strides: r_i, coarsest first; (1,) is ordinary diffusion.
        stage_fractions: share of [0, 1] of each stage, coarsest first; () for equal shares.
        downsample: D, "stride" or "mean".
        upsample: U, "nearest", "nearest_next" or "linear".
        frame_positions: "consistent" (D applied to 0, 1, ..., F-1) or "naive" (0, 1, ... anew).
        target_unit: flow only; "time" for dx/dt, "stage" for the paper's dx/du.
        time_conditioning: "noise_time" or "stage_slices".
        other_num_frames: other lengths that the same network serves: each L is then the largest
            in use, so that all lengths share the stage windows.

    Returns:
        The pyramid.

    Raises:
        ValueError: an unknown choice, strides or a length that do not fit, or a window that
            cannot exist on this path.

    Source: arXiv 2503.09566, Sections 3.2 and 3.3. Differs from the paper: t_start comes from
    the covariance for any U, frames are counted from 0, and stage 0 is not blurred by U.
    """
    check_choice("pyramid.frame_positions", frame_positions, FRAME_POSITIONS)
    check_choice("pyramid.upsample", upsample, UPSAMPLES)  # one stage would never use it
    strides, lengths = tuple(frame_strides), (num_frames, *other_num_frames)
    check_frame_strides(strides)
    for length in lengths:
        check_num_frames(length, strides[0])
    stages: list[Stage] = []
    for stride, t_end in zip(strides, _window_ends(stage_fractions, len(strides)), strict=True):
        t_start, jump = 1.0, None
        if stages:
            rates_and_modes = (stages[-1].frame_stride, stride, downsample, upsample)
            upsamplings = [upsampling_matrix(length, *rates_and_modes) for length in lengths]
            t_start, jump = _jump(path, stages[-1], upsamplings)
        matrix = downsampling_matrix(num_frames, stride, downsample)
        is_naive = frame_positions == "naive"
        positions = np.arange(len(matrix)) if is_naive else matrix @ np.arange(num_frames)
        stages.append(_stage(path, len(stages), stride, t_start, t_end, matrix, positions, jump))
    return Pyramid(
        path=path,
        stages=tuple(stages),
        target_unit=target_unit,
        time_conditioning=time_conditioning,
    )


def _window_ends(stage_fractions: Sequence[float], num_stages: int) -> list[float]:
    """e_i: [0, 1] cut in proportion to the fractions, from 1 downwards; the last is exactly 0."""
    fractions = tuple(stage_fractions) or (1.0,) * num_stages
    if len(fractions) != num_stages or not all(0.0 < share < math.inf for share in fractions):
        raise ValueError(
            f"pyramid.stage_fractions is {fractions}; allowed: () for equal shares, or one "
            f"positive number for each of the {num_stages} stages of pyramid.frame_strides"
        )
    return [sum(fractions[index + 1 :]) / sum(fractions) for index in range(num_stages)]


def _jump(path: Path, previous: Stage, upsamplings: list[np.ndarray]) -> tuple[float, Jump]:
    """The noise time that a stage starts at, and its jump; U for every length, this one's first."""
    eigenvalue = max(largest_eigenvalue(matrix) for matrix in upsamplings)
    nu_start, nu_max = math.sqrt(eigenvalue) * previous.nu_end, path.host_scales(1.0).nu
    if nu_start > nu_max:
        raise ValueError(
            f"pyramid.stage_fractions ends stage {previous.index} at noise time "
            f"{previous.t_end:.4f}, which leaves stage {previous.index + 1} no noise to start "
            f"from: sqrt({eigenvalue:.4g}) times its noise-to-signal ratio {previous.nu_end:.4g} "
            f"is above the path's {nu_max:.4g}; allowed: fractions that end it at or below "
            f"{path.t_from_nu(nu_max / math.sqrt(eigenvalue)):.4f}"
        )
    t_start = path.t_from_nu(nu_start)
    return t_start, Jump(
        upsample=Resampling(matrix=upsamplings[0]),
        eigenvalue=eigenvalue,
        scale=path.host_scales(t_start).gamma / previous.gamma_end,
        noise_factor=Resampling(matrix=noise_factor_matrix(upsamplings[0], eigenvalue)),
    )


def _stage(
    path: Path,
    index: int,
    frame_stride: int,
    t_start: float,
    t_end: float,
    downsampling: np.ndarray,
    positions: np.ndarray,
    jump: Jump | None,
) -> Stage:
    start, end = path.host_scales(t_start), path.host_scales(t_end)
    return Stage(
        index=index,
        frame_stride=frame_stride,
        num_frames=len(downsampling),
        t_start=t_start,
        t_end=t_end,
        gamma_start=start.gamma,
        sigma_start=start.sigma,
        nu_start=start.nu,
        gamma_end=end.gamma,
        sigma_end=end.sigma,
        nu_end=end.nu,
        frame_positions=positions.astype(np.float32),
        downsample=Resampling(matrix=downsampling),
        jump=jump,
    )
