"""How to sample: steps, solver and guidance, checked before anything compiles."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from tpdiff_jax.checks import as_tuple, check_choice, whole_number
from tpdiff_jax.method.solver_coefficients import SOLVERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerSpec:
    """How to sample. Lists are taken too, and kept as tuples, so that a spec can be hashed.

    Args:
        steps_per_stage: solver steps of each stage, coarsest first; `split_steps` shares out a
            number of steps in all.
        solver: "euler" (DDIM on the DDIM path) or "second_order" (two-step multistep).
        renoise: False is the ablation that jumps without fresh noise.
        guidance_scale: of each stage, or one number for all; kept as a tuple.
        time_grids: noise times of each stage, falling, one more than its steps; () for grids from
            s_i to e_i that are even but for the pyramid's time shift. A grid ends at e_i; it starts
            at s_i, save stage 0's, which may start later, as reference samplers' timestep lists do.

    Raises:
        ValueError: an unknown solver, one number where a list is needed, or lengths or numbers
            out of range.
    """

    steps_per_stage: Sequence[int]
    solver: str = "euler"
    renoise: bool = True
    guidance_scale: Sequence[float] | float = (1.0,)
    time_grids: Sequence[Sequence[float]] = ()

    def __post_init__(self) -> None:
        check_choice("sample.solver", self.solver, SOLVERS)
        steps = _checked_steps(self.steps_per_stage)
        scales = _checked_scales(self.guidance_scale, len(steps))
        grids = _checked_grids(self.time_grids, steps)
        checked = (("steps_per_stage", steps), ("guidance_scale", scales), ("time_grids", grids))
        for field, value in checked:
            object.__setattr__(self, field, value)

    @property
    def stage_scales(self) -> tuple[float, ...]:
        """Guidance scale of each stage, [K]."""
        scales = as_tuple("sample.guidance_scale", self.guidance_scale, "")
        return scales * (len(self.steps_per_stage) if len(scales) == 1 else 1)


def _checked_steps(steps: Sequence[int]) -> tuple[int, ...]:
    allowed = "a whole number from 1 for each stage (split_steps shares out one number)"
    given = as_tuple("sample.steps_per_stage", steps, allowed)
    try:
        counts = tuple(whole_number("", one) for one in given)
    except ValueError:
        counts = ()
    if not counts:
        raise ValueError(f"sample.steps_per_stage is {given}; allowed: {allowed}")
    return counts


def _checked_scales(scale: Sequence[float] | float, num_stages: int) -> tuple[float, ...]:
    given = scale if isinstance(scale, Sequence) else np.atleast_1d(scale).tolist()
    allowed = f"one finite number, or one for each of the {num_stages} stages"
    scales = as_tuple("sample.guidance_scale", given, allowed)
    is_finite = all(isinstance(one, float | int) and math.isfinite(one) for one in scales)
    if len(scales) not in (1, num_stages) or not is_finite:
        raise ValueError(f"sample.guidance_scale is {scale!r}; allowed: {allowed}")
    return tuple(float(one) for one in scales)


def _checked_grids(
    time_grids: Sequence[Sequence[float]], steps: tuple[int, ...]
) -> tuple[tuple[float, ...], ...]:
    allowed = f"one grid for each stage, one longer than sample.steps_per_stage {steps}"
    listed = as_tuple("sample.time_grids", time_grids, allowed)
    grids = tuple(
        tuple(float(t) for t in as_tuple("sample.time_grids", grid, allowed)) for grid in listed
    )
    if grids and tuple(len(grid) - 1 for grid in grids) != steps:
        raise ValueError(
            f"sample.time_grids has lengths {tuple(map(len, grids))}; allowed: {allowed}"
        )
    if not all(np.all(np.diff(grid) < 0.0) for grid in grids):
        raise ValueError(f"sample.time_grids is {grids}; allowed: strictly falling times")
    return grids


def split_steps(num_steps: int, num_stages: int) -> tuple[int, ...]:
    """Share solver steps equally; what is left over goes to the coarsest, cheapest stages.

    Args:
        num_steps: steps in all, at least one per stage.
        num_stages: K.

    Returns:
        Steps of each stage, coarsest first.

    Raises:
        ValueError: fewer steps than stages, or no whole number.
    """
    whole_number("sample.num_steps", num_steps)
    if num_steps < num_stages:
        raise ValueError(
            f"sample.num_steps is {num_steps}; allowed: at least one for each of the "
            f"{num_stages} stages"
        )
    share, left = divmod(num_steps, num_stages)
    return tuple(share + (index < left) for index in range(num_stages))
