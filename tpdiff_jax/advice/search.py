"""Which pyramid these clips allow: strides, upsampling, windows and calls of each stage.

Every candidate of a grid makes as many network calls in all as ordinary diffusion does, and is
measured three times: its `error` (`exact_law`), the largest of its jumps' `debt`
(`information_debt`) and its `cost`, the mean of what training and sampling take of ordinary
diffusion's FLOPs. Strides stand in the grid where a copied frame is still worth something:

    share of detail that repetition by r leaves <= USEFUL_SHARE

By default the cheapest candidate is chosen whose error is at most TOLERANCE times that of ordinary
diffusion plus FLOOR, and whose debt is at most MAX_DEBT. Windows cost nothing, so that among equal
costs the least debt decides: the jump is made as noisy as the error allows. The three numbers are
conventions, not measurements.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tpdiff_jax.advice.clip_spectrum import ClipSpectrum
from tpdiff_jax.advice.detail_share import detail_share, fitting_length
from tpdiff_jax.advice.exact_law import GaussianVideos
from tpdiff_jax.advice.information_debt import information_debts
from tpdiff_jax.method.paths import Path
from tpdiff_jax.method.pyramid import Pyramid
from tpdiff_jax.method.sampler_spec import split_steps
from tpdiff_jax.method.stages import make_pyramid

USEFUL_SHARE = 0.375
TOLERANCE, FLOOR, MAX_DEBT = 1.25, 0.005, 1.0
ALL_LADDERS = ((2, 1), (4, 2, 1), (4, 1), (8, 4, 2, 1), (8, 4, 1), (8, 2, 1))
LAW_FRAMES = 24
"""Longer clips are judged by so many of their first frames, or one more."""
_TENTHS, _PARTS = 10, 6


class Setting(NamedTuple):
    """What is chosen, as config fields; one entry a stage, coarsest first.

    Attributes:
        frame_strides: strides over time, the last 1.
        upsample: over time.
        stage_fractions: shares of [0, 1].
        steps_per_stage: network calls.
    """

    frame_strides: tuple[int, ...]
    upsample: str
    stage_fractions: tuple[float, ...]
    steps_per_stage: tuple[int, ...]


class Candidate(NamedTuple):
    """A setting and what it is worth.

    Attributes:
        setting: the fields.
        error: relative distance of the reached law to the data's, 0 or more.
        debts: of each jump, nats per new frame.
        sampling_cost: share of ordinary diffusion's FLOPs of a video.
        training_cost: share of its FLOPs of a training clip, stages drawn evenly.
    """

    setting: Setting
    error: float
    debts: tuple[float, ...]
    sampling_cost: float
    training_cost: float

    @property
    def cost(self) -> float:
        """The mean of both costs."""
        return (self.sampling_cost + self.training_cost) / 2.0

    @property
    def debt(self) -> float:
        """The largest of the jumps' debts; 0 without a jump."""
        return max((0.0, *self.debts))


class StageCosts(NamedTuple):
    """What one clip costs at a stride over time, as shares of full rate.

    Attributes:
        sampling: stride -> cost of a network call.
        training: stride -> cost of a training step.
    """

    sampling: Mapping[int, float]
    training: Mapping[int, float]


class Problem(NamedTuple):
    """What a search keeps fixed.

    Attributes:
        spectrum: of the clips.
        path: the noise path.
        solver: "euler" or "second_order".
        num_calls: network calls of a video.
        downsample: D over time.
        time_shift: of training and sampling times.
    """

    spectrum: ClipSpectrum
    path: Path
    solver: str
    num_calls: int
    downsample: str = "stride"
    time_shift: float = 1.0


class Limits(NamedTuple):
    """What a candidate must keep to.

    Attributes:
        max_debt: nats per new frame of any jump.
        max_cost: of both costs' mean; None looks for the cheapest instead of the best.
    """

    max_debt: float = MAX_DEBT
    max_cost: float | None = None


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


def law_spectrum(spectrum: ClipSpectrum, largest_stride: int) -> ClipSpectrum:
    """The spectrum of the first frames that a search looks at.

    Args:
        spectrum: of whole clips.
        largest_stride: of the pyramid, which fits them: both lengths are a multiple, or one more.
    """
    frames, unit = spectrum.num_frames, largest_stride
    if frames <= LAW_FRAMES + 1:
        return spectrum
    kept = unit * max(2, LAW_FRAMES // unit) + (frames % unit == 1 and unit > 1)
    return spectrum.first_frames(min(frames, kept))


class Search:
    """Judges settings on one problem."""

    def __init__(self, problem: Problem, costs: StageCosts) -> None:
        """Take what is fixed, and what stages cost."""
        self._problem, self._costs = problem, costs
        self._videos = GaussianVideos(problem.spectrum)
        self._debts: dict[tuple, tuple[float, ...]] = {}

    def judge(self, setting: Setting) -> Candidate:
        """Measure one setting.

        Raises:
            ValueError: for windows that cannot exist on this path, or frames that do not fit.
        """
        pyramid, key = self._pyramid(setting), setting[:3]
        if key not in self._debts:
            self._debts[key] = information_debts(self._problem.spectrum, pyramid)
        strides, calls = setting.frame_strides, setting.steps_per_stage
        spent = sum(n * self._costs.sampling[r] for n, r in zip(calls, strides, strict=True))
        return Candidate(
            setting=setting,
            error=self._videos.error(pyramid, calls, self._problem.solver),
            debts=self._debts[key],
            sampling_cost=spent / sum(calls),
            training_cost=sum(self._costs.training[r] for r in strides) / len(strides),
        )

    def vanilla(self) -> Candidate:
        """Ordinary diffusion with as many calls."""
        return self.judge(Setting((1,), "nearest", (1.0,), (self._problem.num_calls,)))

    def candidates(
        self, ladders: Sequence[tuple[int, ...]], upsamples: Sequence[str]
    ) -> Iterator[Candidate]:
        """Every setting of the grid that can exist.

        Args:
            ladders: strides of the stages, each.
            upsamples: names of U over time.

        Yields:
            Candidates, ladder by ladder.
        """
        for ladder, upsample in itertools.product(ladders, upsamples):
            yield from self.with_windows(
                ladder, upsample, shared_calls(self._problem.num_calls, len(ladder)), _TENTHS
            )

    def with_windows(
        self,
        ladder: tuple[int, ...],
        upsample: str,
        calls: Sequence[tuple[int, ...]],
        parts: int,
    ) -> Iterator[Candidate]:
        """Every cut of [0, 1] into equal parts, shared out among the stages.

        Args:
            ladder: strides of the stages.
            upsample: U over time.
            calls: network calls of the stages, each.
            parts: number of parts; the windows' ends are multiples of 1/parts.

        Yields:
            Those candidates whose windows can exist.
        """
        for shares in compositions(parts, len(ladder)):
            fractions = tuple(share / parts for share in shares)
            try:
                self._pyramid(Setting(ladder, upsample, fractions, ()))
            except ValueError:  # no window of such an end on this path
                continue
            for steps in calls:
                yield self.judge(Setting(ladder, upsample, fractions, steps))

    def _pyramid(self, setting: Setting) -> Pyramid:
        problem = self._problem
        return _make_pyramid(
            problem.path,
            problem.spectrum.num_frames,
            setting.frame_strides,
            setting.stage_fractions,
            problem.downsample,
            setting.upsample,
            problem.time_shift,
        )


@functools.lru_cache(maxsize=4096)
def _make_pyramid(
    path: Path,
    num_frames: int,
    strides: tuple[int, ...],
    fractions: tuple[float, ...],
    downsample: str,
    upsample: str,
    time_shift: float,
) -> Pyramid:
    return make_pyramid(
        path,
        shape=(num_frames, 1, 1),
        strides=strides,
        stage_fractions=fractions,
        downsample=(downsample, "stride", "stride"),
        upsample=(upsample, "nearest", "nearest"),
        time_shift=time_shift,
    )


def error_limit(vanilla_error: float) -> float:
    """The largest error that counts as no worse than ordinary diffusion's.

    Args:
        vanilla_error: its error.
    """
    return TOLERANCE * vanilla_error + FLOOR


def choose(
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
    kept = [one for one in candidates if one.debt <= limits.max_debt]
    if limits.max_cost is not None:
        most = limits.max_cost * (1.0 + 1e-9)
        kept = [one for one in kept if one.cost <= most]
        return min(kept, key=lambda one: (round(one.error, 6), one.cost), default=None)
    kept = [one for one in kept if one.error <= error_limit(vanilla_error)]
    order = lambda one: (round(one.cost, 6), round(one.debt, 6), one.error)  # noqa: E731
    return min(kept, key=order, default=None)


def choose_windows(search: Search, fixed: Setting, limits: Limits | None = None) -> Candidate:
    """The windows for strides, upsampling and calls that are given.

    Args:
        search: on the clips; its number of calls is that of the fixed setting.
        fixed: its fractions do not count.
        limits: the cost is given, and not looked at.

    Returns:
        Of the windows within the limits of error and debt the one of the least debt; else that of
        the least error whose debt is within its limit; else that of the least debt.

    Raises:
        ValueError: where no window can exist.
    """
    limits = limits or Limits()
    ladder, upsample, _, steps = fixed
    found = list(search.with_windows(ladder, upsample, [steps], _TENTHS * 2))
    if not found:
        raise ValueError(f"no windows exist for frame strides {ladder} on this path")
    best = choose(found, search.vanilla().error, limits._replace(max_cost=None))
    best = best or choose(found, 0.0, limits._replace(max_cost=math.inf))
    return best or min(found, key=lambda one: (round(one.debt, 6), one.error))


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
    if num_calls < _PARTS or num_stages > _PARTS:
        return [split_steps(num_calls, num_stages)]
    ways = []
    for shares in compositions(_PARTS, num_stages):
        ends = [round(num_calls * part / _PARTS) for part in itertools.accumulate(shares)]
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
