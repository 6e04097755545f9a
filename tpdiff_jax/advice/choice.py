"""Which of the judged settings is best.

By default the cheapest whose error is at most TOLERANCE times that of ordinary diffusion with as
many calls, plus FLOOR, and whose jumps leave at most MAX_VISIBLE of detail to be seen. Windows
cost nothing, nor does the kind of upsampling, so that among equal costs the least error decides.
Without the limit on what is visible the error alone would put jumps where noise is low and steps
are short: an exact predictor can add any detail there, a trained one is asked for all of it at
once. A pyramid pays where the chosen setting has such an error and costs at most PAYING_COST. The
numbers are conventions.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from tpdiff_jax.advice.search import Candidate, Search
from tpdiff_jax.advice.settings_grid import WINDOW_PARTS, Setting

TOLERANCE, FLOOR, MAX_VISIBLE = 1.25, 0.005, 1.0
PAYING_COST = 0.9


class Limits(NamedTuple):
    """What a candidate must keep to.

    Attributes:
        max_visible: visible detail of any jump, nats per thousand numbers of new frames.
        max_debt: debt of any jump, nats per new frame.
        max_cost: of both costs' mean; None looks for the cheapest instead of the best.
    """

    max_visible: float = MAX_VISIBLE
    max_debt: float = math.inf
    max_cost: float | None = None

    def allow(self, one: Candidate) -> bool:
        """Whether a candidate's jumps keep to the limits."""
        return one.debt <= self.max_debt and one.visible <= self.max_visible


def error_limit(vanilla_error: float) -> float:
    """The largest error that counts as no worse than ordinary diffusion's.

    Args:
        vanilla_error: its error.
    """
    return TOLERANCE * vanilla_error + FLOOR


def is_paying(best: Candidate | None, vanilla_error: float) -> bool:
    """Whether a setting is no worse than ordinary diffusion, and cheaper.

    Args:
        best: what was chosen; None for nothing.
        vanilla_error: of ordinary diffusion with as many calls.
    """
    return (
        best is not None and best.cost <= PAYING_COST and best.error <= error_limit(vanilla_error)
    )


def choose_setting(
    candidates: Sequence[Candidate], vanilla_error: float, limits: Limits | None = None
) -> Candidate | None:
    """The best of some candidates.

    Args:
        candidates: any number.
        vanilla_error: of ordinary diffusion with as many calls.
        limits: what to keep to. With a largest cost, the least error within it is best; without,
            the least cost among those of an error within `error_limit`.

    Returns:
        The best, or None where none keeps to the limits.
    """
    limits = limits or Limits()
    kept = [one for one in candidates if limits.allow(one)]
    if limits.max_cost is not None:
        most = limits.max_cost * (1.0 + 1e-9)
        kept = [one for one in kept if one.cost <= most]
        return min(kept, key=lambda one: (round(one.error, 6), one.cost), default=None)
    kept = [one for one in kept if one.error <= error_limit(vanilla_error)]
    return min(kept, key=lambda one: (round(one.cost, 6), one.error), default=None)


def choose_windows(search: Search, fixed: Setting, limits: Limits | None = None) -> Candidate:
    """The windows for strides, upsampling and calls that are given.

    Args:
        search: on the clips; its number of calls is that of the fixed setting.
        fixed: its fractions do not count.
        limits: the cost is given, and not looked at.

    Returns:
        The windows of the least error among those whose jumps keep to the limits; where none do,
        those of the least visible detail.

    Raises:
        ValueError: where no window can exist.
    """
    limits = limits or Limits()
    ladder, downsample, upsample, _, steps = fixed
    parts = 2 * WINDOW_PARTS if len(ladder) <= 3 else max(WINDOW_PARTS, len(ladder) + 1)
    found = list(search.with_windows(ladder, (downsample, upsample), [steps], parts))
    if not found:
        raise ValueError(f"no windows exist for frame strides {ladder} on this path")
    best = choose_setting(found, 0.0, limits._replace(max_cost=math.inf))
    return best or min(found, key=lambda one: (round(one.visible, 6), one.error))
