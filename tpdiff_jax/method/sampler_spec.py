"""How to sample: steps, solver and guidance, checked before anything compiles."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

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
        grid_power: p of each stage, or one number for all; kept as a tuple. The n steps of a stage
            start at shares (1 - k / n)^p of its window, in the pyramid's even time: 1 is even,
            above 1 the last steps are the shortest.
        time_grids: noise times of each stage, falling, one more than its steps, in place of
            `grid_power`; () for none. A grid ends at e_i; it starts at s_i, save stage 0's, which
            may start later, as reference samplers' timestep lists do.

    Raises:
        ValueError: an unknown solver, one number where a list is needed, or lengths or numbers
            out of range.
    """

    steps_per_stage: Sequence[int]
    solver: str = "euler"
    renoise: bool = True
    guidance_scale: Sequence[float] | float = (1.0,)
    grid_power: Sequence[float] | float = (1.0,)
    time_grids: Sequence[Sequence[float]] = ()

    def __post_init__(self) -> None:
        check_choice("sample.solver", self.solver, SOLVERS)
        steps = _checked_steps(self.steps_per_stage)
        grids = _checked_grids(self.time_grids, steps)
        powers = _checked_powers(self.grid_power, len(steps))
        if grids and set(powers) != {1.0}:
            raise ValueError(
                f"sample.grid_power is {powers} with sample.time_grids, which say all times; "
                "allowed: 1"
            )
        checked = {
            "steps_per_stage": steps,
            "guidance_scale": _checked_scales(self.guidance_scale, len(steps)),
            "grid_power": powers,
            "time_grids": grids,
        }
        for field, value in checked.items():
            object.__setattr__(self, field, value)

    @property
    def stage_scales(self) -> tuple[float, ...]:
        """Guidance scale of each stage, [K]."""
        return self._of_stages("guidance_scale")

    @property
    def stage_powers(self) -> tuple[float, ...]:
        """Power of each stage's grid, [K]."""
        return self._of_stages("grid_power")

    def _of_stages(self, field: str) -> tuple[float, ...]:
        numbers = as_tuple(f"sample.{field}", getattr(self, field), "")
        return numbers * (len(self.steps_per_stage) if len(numbers) == 1 else 1)


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
    return _numbers_of_stages("sample.guidance_scale", scale, num_stages, "finite")


def _checked_powers(power: Sequence[float] | float, num_stages: int) -> tuple[float, ...]:
    return _numbers_of_stages("sample.grid_power", power, num_stages, "finite and positive")


def _numbers_of_stages(
    field: str, given: Sequence[float] | float, num_stages: int, kind: str
) -> tuple[float, ...]:
    """One number for all stages or one for each, as floats."""
    allowed = f"one {kind} number, or one for each of the {num_stages} stages"
    listed = given if isinstance(given, Sequence) else np.atleast_1d(given).tolist()
    numbers = as_tuple(field, listed, allowed)
    least = 0.0 if kind.endswith("positive") else -math.inf
    fits = all(isinstance(one, float | int) and least < one < math.inf for one in numbers)
    if len(numbers) not in (1, num_stages) or not fits:
        raise ValueError(f"{field} is {given!r}; allowed: {allowed}")
    return tuple(float(one) for one in numbers)


def _checked_grids(
    time_grids: Sequence[Sequence[float]], steps: tuple[int, ...]
) -> tuple[tuple[float, ...], ...]:
    allowed = f"one grid for each stage, one longer than sample.steps_per_stage {steps}"
    grids = as_time_grids(time_grids, allowed)
    if grids and tuple(len(grid) - 1 for grid in grids) != steps:
        raise ValueError(
            f"sample.time_grids has lengths {tuple(map(len, grids))}; allowed: {allowed}"
        )
    if not all(np.all(np.diff(grid) < 0.0) for grid in grids):
        raise ValueError(f"sample.time_grids is {grids}; allowed: strictly falling times")
    return grids


def as_time_grids(
    time_grids: Sequence[Sequence[float]], allowed: str = "one list of noise times for each stage"
) -> tuple[tuple[float, ...], ...]:
    """Grids of noise times as tuples of floats.

    Args:
        time_grids: a list of numbers in [0, 1] for each stage; () for none.
        allowed: for the error.

    Returns:
        The same numbers.

    Raises:
        ValueError: anything else, such as one list for all stages, words or NaN.
    """
    listed = as_tuple("sample.time_grids", time_grids, allowed)
    if not all(map(_is_grid, listed)):
        raise ValueError(
            f"sample.time_grids is {time_grids!r}; allowed: {allowed}, each of two times or more "
            "in [0, 1]"
        )
    return tuple(tuple(float(t) for t in grid) for grid in listed)


def _is_grid(times: Any) -> bool:
    is_list = isinstance(times, Sequence | np.ndarray) and len(times) > 1
    return is_list and all(map(_is_time, times))


def _is_time(t: Any) -> bool:
    is_number = isinstance(t, float | int | np.number) and not isinstance(t, bool)
    return is_number and 0.0 <= float(t) <= 1.0


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
