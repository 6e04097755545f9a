"""A pyramid from what a user asks for: strides, windows of noise time, and jumps.

Stage 0 is the coarsest and the first that sampling runs; stage K-1 has the full video. The window
ends e_i cut [0, 1] in proportion to the stage fractions. The start of a later stage is not the
end of the one before it: upsampling leaves correlated noise, and making it white takes fresh
noise, so the next stage starts noisier, at

    nu_{s_i} = sqrt(L) nu_{e_{i-1}},        L the largest eigenvalue of U U^T

the least start at which the missing covariance sigma_s^2 I - (gamma_s/gamma_e)^2 sigma_e^2 U U^T
is one. Any noisier start is exact too: with an overlap above 1 it takes L' = overlap L in place of
L, in the start and in the noise factor. Nothing here knows which axes are pooled: time, space or
both.
"""

import math
import numbers
from collections.abc import Sequence

import numpy as np

from tpdiff_jax.checks import as_tuple, check_choice, check_range
from tpdiff_jax.method.axis_matrices import axis_positions
from tpdiff_jax.method.paths import Path
from tpdiff_jax.method.pyramid import Jump, Pyramid, Stage
from tpdiff_jax.method.resampling import (
    Modes,
    Resampling,
    downsampling,
    noise_factor,
    product_eigenvalue,
    upsampling,
)
from tpdiff_jax.method.strides import (
    check_modes,
    check_shape,
    downsample_modes,
    stage_strides,
    upsample_modes,
)
from tpdiff_jax.method.time_sampling import UNIFORM, TimeSampling
from tpdiff_jax.types import Positions, Shape, Strides

FRAME_POSITIONS = ("consistent", "naive")
MIN_SHARE = 1e-6
"""Least share of [0, 1] of a stage. Times are float32, which near 1 resolves 6e-8: in a window of
that width they would fall on its ends and outside it."""
_ROUNDING = 1e-9


def make_pyramid(
    path: Path,
    *,
    shape: Sequence[int],
    strides: Sequence[int | Sequence[int]] = (4, 2, 1),
    stage_fractions: Sequence[float] = (),
    overlap: float = 1.0,
    downsample: str | Sequence[str] = "stride",
    upsample: str | Sequence[str] = "nearest",
    data_mean: float | Sequence[float] = 0.0,
    frame_positions: str = "consistent",
    target_unit: str = "time",
    time_conditioning: str = "noise_time",
    stage_weighting: str = "raw",
    time_shift: float = 1.0,
    time_sampling: TimeSampling = UNIFORM,
    line: str = "stagewise",
    coarse_noise: float = 0.0,
    other_shapes: Sequence[Sequence[int]] = (),
) -> Pyramid:
    """Cut a noise path into stages of rising frame rate, size, or both.

    Args:
        path: the noise path.
        shape: frames F, height H and width W of the full video. Along each axis a multiple of
            the largest stride; F may be one more.
        strides: coarsest first, over (time, height, width) or, one number, over time; (1,) is
            ordinary diffusion.
        stage_fractions: share of [0, 1] of each stage, coarsest first; () for equal shares.
        overlap: L'/L, at least 1: how much noisier than it must (squared) a stage starts, hiding
            more of what upsampling got wrong behind noise, for a wider window.
        downsample: D, "stride", "mean" or "dct", for all axes, or for time, height and width.
        upsample: U, "nearest", "nearest_next", "insert" (these two over time only), "linear" or
            "dct", likewise; "dct" goes with the D of that name, and only with it; "insert" with
            "stride".
        data_mean: mu, what stands in the frames that "insert" adds: a number, or one for each
            channel.
        frame_positions: "consistent" (where each stands in the full axis, see `axis_positions`)
            or "naive" (0, 1, ... anew in each stage).
        target_unit: flow only; "time" for dx/dt, "stage" for the paper's dx/du.
        time_conditioning: "noise_time" or "stage_slices".
        stage_weighting: of data prediction's loss, "raw" or "equal" (see `loss_weight`).
        time_shift: s; times of training and sampling are even in u within a stage, with
            t = s u / (1 + (s - 1) u) (see `Pyramid.times_at`).
        time_sampling: how training draws times within a stage; by default uniform in u.
        line: what a stage is trained on; "stagewise", the line from what the stage before knew to
            the stage's own video, or "marginal", ordinary diffusion of the stage's own video
            within its window (see `stage_videos`). Sampling is the same.
        coarse_noise: tau, of the noise on what the stage before knew, in training alone (see
            `coarse_perturbation`).
        other_shapes: shapes that the same network serves too: each L is then the largest in use,
            so that all of them share the stage windows.

    Returns:
        The pyramid.

    Raises:
        ValueError: an unknown choice, strides or a shape that do not fit, or a window that
            cannot exist on this path or in float32.

    Source: arXiv 2503.09566, Sections 3.2 and 3.3. Differs from the paper: t_start comes from
    the covariance for any U, frames are counted from 0, stage 0 is not blurred by U, and height
    and width may be pooled too.
    """
    check_choice("pyramid.frame_positions", frame_positions, FRAME_POSITIONS)
    check_range("pyramid.overlap", overlap, 1, math.inf, "[)")
    triples = stage_strides(strides)
    # Checked here, as a pyramid of one stage would never use them.
    down, up = downsample_modes(downsample), upsample_modes(upsample, triples[0])
    check_modes(down, up)
    means = _channel_means(data_mean)
    listed = as_tuple("other_shapes", other_shapes, "a list of shapes")
    shapes = [check_shape(one, triples[0]) for one in (shape, *listed)]
    stages: list[Stage] = []
    for triple, t_end in zip(triples, _window_ends(stage_fractions, len(triples)), strict=True):
        t_start, jump = 1.0, None
        if stages:
            t_start, jump = _jump(
                path,
                stages[-1],
                [upsampling(one, stages[-1].strides, triple, down, up) for one in shapes],
                overlap,
                means,
            )
        kept = downsampling(shapes[0], triple, down)
        positions = _positions(shapes[0], triple, down, frame_positions)
        stages.append(_stage(path, len(stages), triple, t_start, t_end, kept, positions, jump))
    return Pyramid(
        path=path,
        stages=tuple(stages),
        target_unit=target_unit,
        time_conditioning=time_conditioning,
        stage_weighting=stage_weighting,
        time_shift=time_shift,
        time_sampling=time_sampling,
        line=line,
        coarse_noise=coarse_noise,
    )


def _positions(shape: Shape, strides: Strides, down: Modes, choice: str) -> Positions:
    """Where a stage's frames, rows and columns stand in the full video, float32."""
    axes = [axis_positions(*axis) for axis in zip(shape, strides, down, strict=True)]
    if choice == "naive":
        axes = [np.arange(len(axis)) for axis in axes]
    return Positions(*(axis.astype(np.float32) for axis in axes))


def _channel_means(data_mean: float | Sequence[float]) -> tuple[float, ...]:
    """The data's mean: one number of all channels, or one for each."""
    is_list = isinstance(data_mean, str) or hasattr(data_mean, "__iter__")
    allowed = "a number, or one for each channel"
    means = as_tuple("pyramid.data_mean", data_mean if is_list else (data_mean,), allowed)
    if not means or not all(isinstance(one, numbers.Real) and math.isfinite(one) for one in means):
        raise ValueError(f"pyramid.data_mean is {data_mean!r}; allowed: {allowed}")
    return tuple(map(float, means))


def _window_ends(stage_fractions: Sequence[float], num_stages: int) -> list[float]:
    """e_i: [0, 1] cut in proportion to the fractions, from 1 downwards; the last is exactly 0."""
    allowed = (
        "() for equal shares, or one positive number for each of the "
        f"{num_stages} stages of pyramid.strides, none below {MIN_SHARE:g} of their sum"
    )
    given = as_tuple("pyramid.stage_fractions", stage_fractions, allowed)
    fractions = given or (1.0,) * num_stages
    if (
        len(fractions) != num_stages
        or not all(0.0 < share < math.inf for share in fractions)
        or min(fractions) < MIN_SHARE * sum(fractions)
    ):
        raise ValueError(f"pyramid.stage_fractions is {fractions}; allowed: {allowed}")
    return [sum(fractions[index + 1 :]) / sum(fractions) for index in range(num_stages)]


def _jump(
    path: Path,
    previous: Stage,
    upsamplings: list[Resampling],
    overlap: float,
    data_mean: tuple[float, ...],
) -> tuple[float, Jump]:
    """The noise time that a stage starts at, and its jump; U for every shape, this one's first."""
    eigenvalue = overlap * max(product_eigenvalue(upsample) for upsample in upsamplings)
    nu_start, nu_max = math.sqrt(eigenvalue) * previous.nu_end, path.host_scales(1.0).nu
    if nu_start > nu_max:
        raise ValueError(
            f"pyramid.stage_fractions ends stage {previous.index} at noise time "
            f"{previous.t_end:.4f}, which leaves stage {previous.index + 1} no noise to start "
            f"from: sqrt({eigenvalue:.4g}) times its noise-to-signal ratio {previous.nu_end:.4g} "
            f"is above the path's {nu_max:.4g}; allowed: {_less_overlap(overlap)}fractions that "
            f"end it at or below {path.t_from_nu(nu_max / math.sqrt(eigenvalue)):.4f}"
        )
    t_start = path.t_from_nu(nu_start)
    return t_start, Jump(
        upsample=upsamplings[0],
        eigenvalue=eigenvalue,
        scale=path.host_scales(t_start).gamma / previous.gamma_end,
        noise_factor=noise_factor(upsamplings[0], eigenvalue),
        data_mean=data_mean,
    )


def _less_overlap(overlap: float) -> str:
    return f"a pyramid.overlap below {overlap:g}, or " if overlap > 1.0 else ""


def _stage(
    path: Path,
    index: int,
    strides: Strides,
    t_start: float,
    t_end: float,
    kept: Resampling,
    positions: Positions,
    jump: Jump | None,
) -> Stage:
    start, end = path.host_scales(t_start), path.host_scales(t_end)
    if start.nu <= (1.0 + _ROUNDING) * end.nu:  # a path may stand still near the data
        raise ValueError(
            f"pyramid.stage_fractions gives stage {index} an empty window: at noise times "
            f"{t_start:.4f} and {t_end:.4f} this path has one noise-to-signal ratio, {end.nu:.4g}; "
            f"allowed: a larger share of stage {index}"
        )
    time, height, width = kept.matrices
    return Stage(
        index=index,
        strides=strides,
        shape=(len(time), len(height), len(width)),
        t_start=t_start,
        t_end=t_end,
        gamma_start=start.gamma,
        sigma_start=start.sigma,
        nu_start=start.nu,
        gamma_end=end.gamma,
        sigma_end=end.sigma,
        nu_end=end.nu,
        positions=positions,
        downsample=kept,
        jump=jump,
    )
