"""Noise times at which a sampler calls the network in each stage: even, bent, or given.

A grid runs from s_i to e_i. With n steps and power p its shares of the window, in the even time u
of the pyramid's time shift, are

    (1 - k / n)^p,    k = 0 ... n

p = 1 is even; above 1 the last steps of a stage are the shortest, below 1 the first ones.
"""

import math
from collections.abc import Sequence

import numpy as np

from tpdiff_jax.method.pyramid import Pyramid
from tpdiff_jax.method.sampler_spec import SamplerSpec


def time_grids(pyramid: Pyramid, spec: SamplerSpec) -> list[np.ndarray]:
    """Noise times of each stage, from s_i down to e_i.

    Args:
        pyramid: the stages.
        spec: steps of each stage, and its grids or their power.

    Returns:
        float64, one array a stage, coarsest first, [steps + 1] each.

    Raises:
        ValueError: the spec does not fit the pyramid, or two times are one in float32, which is
            what the sampler steps through.
    """
    if len(spec.steps_per_stage) != pyramid.num_stages:
        raise ValueError(
            f"sample.steps_per_stage is {spec.steps_per_stage}; allowed: one number for each of "
            f"the {pyramid.num_stages} stages of pyramid.strides"
        )
    if spec.time_grids:
        grids = [_given_grid(pyramid, i, grid) for i, grid in enumerate(spec.time_grids)]
    else:
        steps = zip(spec.steps_per_stage, spec.stage_powers, strict=True)
        grids = [_bent_grid(pyramid, i, n, power) for i, (n, power) in enumerate(steps)]
    for i, grid in enumerate(grids):
        if not np.all(np.diff(grid.astype(np.float32)) < 0.0):
            named = (
                f"sample.time_grids of stage {i} is {spec.time_grids[i]}"
                if spec.time_grids
                else f"sample.grid_power is {spec.grid_power}"
            )
            raise ValueError(
                f"{named}, so that two of the {len(grid)} noise times of stage {i} are one in "
                "float32; allowed: times that fall with every step"
            )
    return grids


def _given_grid(pyramid: Pyramid, stage_index: int, grid: Sequence[float]) -> np.ndarray:
    """A grid that the spec lists, checked against the stage's window."""
    stage = pyramid.stages[stage_index]
    is_late = stage_index == 0 and stage.t_end < grid[0] <= stage.t_start
    is_start = is_late or math.isclose(grid[0], stage.t_start, abs_tol=1e-6)
    if not (is_start and math.isclose(grid[-1], stage.t_end, abs_tol=1e-6)):
        raise ValueError(
            f"sample.time_grids of stage {stage_index} runs from {grid[0]} to {grid[-1]}; "
            f"allowed: {stage.t_start} to {stage.t_end}"
        )
    return np.asarray(grid, np.float64)


def _bent_grid(pyramid: Pyramid, stage_index: int, num_steps: int, power: float) -> np.ndarray:
    """Times from s_i to e_i at shares (1 - k / n)^power, in even time."""
    stage = pyramid.stages[stage_index]
    shares = np.linspace(1.0, 0.0, num_steps + 1) ** power
    grid = np.asarray(pyramid.times_at(stage_index, shares))
    grid[0], grid[-1] = stage.t_start, stage.t_end  # rounding must not move the ends
    return grid
