"""The largest batch that fits, found with a memory model that compilations check.

Peak memory is close to a line in the batch size. Two known points give the line, the line gives
the next batch to compile, and whether that compiles narrows the bracket.
"""

from collections.abc import Callable
from typing import NamedTuple

from tpdiff_jax.planning.program_cost import DoesNotFit


class LargestBatch(NamedTuple):
    """What the search found.

    Attributes:
        batch_size: the largest that compiled, 0 when none did.
        refused: the smallest that was refused, or None when the search ended before one was.
    """

    batch_size: int
    refused: int | None


def largest_batch(
    peak_of: Callable[[int], float],
    *,
    unit: int,
    memory_bytes: float,
    known: dict[int, float],
    fits: int,
    refused: int | None,
    max_compilations: int = 4,
) -> LargestBatch:
    """Find the largest multiple of `unit` that fits.

    Args:
        peak_of: compiles for a batch size and returns its peak memory; raises DoesNotFit.
        unit: smallest batch, and the step between batches.
        memory_bytes: of a device.
        known: batch size -> bytes that it needs, as far as known.
        fits: the largest batch that is known to fit, or 0.
        refused: the smallest that is known not to, or None.
        max_compilations: when to stop narrowing. The batch returned has compiled then, too, but a
            larger one might.
    """
    known = dict(known)
    for _ in range(max_compilations):
        if refused is not None and refused - fits <= unit:
            break
        batch_size = _next_batch(known, unit, memory_bytes, fits, refused)
        try:
            known[batch_size] = peak_of(batch_size)
            fits = batch_size
        except DoesNotFit as error:
            refused = batch_size
            if error.needed is not None:
                known[batch_size] = error.needed
    return LargestBatch(fits, refused)


def _next_batch(
    known: dict[int, float], unit: int, memory_bytes: float, fits: int, refused: int | None
) -> int:
    """The batch that the line through the two known points next to the limit says is the largest.

    Without such a line, or when it leaves the bracket: the bracket's middle, or twice what fits.
    """
    batch_size = 2 * fits if refused is None else (fits + refused) // 2
    points = sorted(sorted(known.items(), key=lambda point: abs(point[1] - memory_bytes))[:2])
    if len(points) == 2 and points[1][1] > points[0][1]:
        (batch_0, peak_0), (batch_1, peak_1) = points
        guess = batch_0 + int((memory_bytes - peak_0) * (batch_1 - batch_0) / (peak_1 - peak_0))
        if fits <= guess and (refused is None or guess < refused):
            batch_size = guess
    return max(batch_size - batch_size % unit, fits + unit)
