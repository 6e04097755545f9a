"""The settings that are tried: strides, upsampling, windows and calls of each stage.

Strides stand in the grid where a copied frame is still worth something:

    share of detail that repetition by r leaves <= USEFUL_SHARE

Ends of windows are tenths of [0, 1], calls are shared out in sixths.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tpdiff_jax.advice.clip_spectrum import ClipSpectrum
from tpdiff_jax.advice.detail_share import detail_share, fitting_length
from tpdiff_jax.method.sampler_spec import split_steps

USEFUL_SHARE = 0.375
"""A convention, within what real video has at stride 4 (0.12 to 0.50)."""
ALL_LADDERS = ((2, 1), (4, 2, 1), (4, 1), (8, 4, 2, 1), (8, 4, 1), (8, 2, 1))
WINDOW_PARTS, _CALL_PARTS = 10, 6


class Setting(NamedTuple):
    """What is chosen, as config fields; one entry a stage, coarsest first.

    Attributes:
        frame_strides: strides over time, the last 1.
        downsample: D over time.
        upsample: U over time.
        stage_fractions: shares of [0, 1].
        steps_per_stage: network calls.
    """

    frame_strides: tuple[int, ...]
    downsample: str
    upsample: str
    stage_fractions: tuple[float, ...]
    steps_per_stage: tuple[int, ...]


def useful_strides(spectrum: ClipSpectrum) -> tuple[int, ...]:
    """The strides at which a copied frame still shows enough of those that it stands for.

    Args:
        spectrum: of the clips.
    """
    strides = sorted({ladder[0] for ladder in ALL_LADDERS})
    shares = {stride: detail_share(spectrum.total_cov, stride, "nearest") for stride in strides}
    return tuple(
        stride for stride, share in shares.items() if share is not None and share <= USEFUL_SHARE
    )


def shared_calls(num_calls: int, num_stages: int) -> list[tuple[int, ...]]:
    """Ways to share out network calls, in sixths of all where there are so many.

    Args:
        num_calls: in all.
        num_stages: K.

    Returns:
        Calls of each stage, at least one, each way once; [] where there are too few.
    """
    if num_calls < num_stages:
        return []
    if num_calls < _CALL_PARTS or num_stages > _CALL_PARTS:
        return [split_steps(num_calls, num_stages)]
    ways = []
    for shares in compositions(_CALL_PARTS, num_stages):
        ends = [round(num_calls * part / _CALL_PARTS) for part in itertools.accumulate(shares)]
        ways.append(tuple(b - a for a, b in itertools.pairwise([0, *ends])))
    return ways


def fitting_ladders(
    num_frames: int, strides: Sequence[int], is_possible: Callable[[tuple[int, ...]], bool]
) -> list[tuple[int, ...]]:
    """The ladders of strides that clips of a length have.

    Args:
        num_frames: F.
        strides: that may stand in a ladder beside 1.
        is_possible: whether a network takes a ladder.
    """
    allowed = {1, *(r for r in strides if fitting_length(num_frames, r) == num_frames)}
    return [ladder for ladder in ALL_LADDERS if allowed.issuperset(ladder) and is_possible(ladder)]


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way to write a number as a sum of so many numbers from 1, in order.

    Args:
        total: the number.
        parts: how many.
    """
    for cuts in itertools.combinations(range(1, total), parts - 1):
        yield tuple(b - a for a, b in itertools.pairwise([0, *cuts, total]))
