"""Judging settings: the error, the debts and the costs of each.

Every setting makes as many network calls in all as ordinary diffusion does, and is measured three
times: its `error` (`exact_law`), what its jumps leave to do (`jump_debts`), and its `cost`, the
mean of what training and sampling take of ordinary diffusion's FLOPs.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tpdiff_jax.advice.clip_spectrum import ClipSpectrum
from tpdiff_jax.advice.exact_law import GaussianVideos
from tpdiff_jax.advice.jump_debts import information_debts, visible_details
from tpdiff_jax.advice.settings_grid import WINDOW_PARTS, Setting, compositions, shared_calls
from tpdiff_jax.method.paths import Path
from tpdiff_jax.method.pyramid import Pyramid
from tpdiff_jax.method.sampler_spec import SamplerSpec
from tpdiff_jax.method.stages import make_pyramid

LAW_FRAMES = 24
"""Longer clips are judged by so many of their first frames, or one more."""


class Candidate(NamedTuple):
    """A setting and what it is worth.

    Attributes:
        setting: the fields.
        error: relative distance of the reached law to the data's, 0 or more.
        debts: of each jump, nats per new frame.
        visible_details: likewise, nats per thousand numbers of new frames.
        sampling_cost: share of ordinary diffusion's FLOPs of a video.
        training_cost: share of its FLOPs of a training clip.
    """

    setting: Setting
    error: float
    debts: tuple[float, ...]
    visible_details: tuple[float, ...]
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

    @property
    def visible(self) -> float:
        """The largest of the jumps' visible details; 0 without a jump."""
        return max((0.0, *self.visible_details))


class StageCosts(NamedTuple):
    """What one clip costs at a stride over time, as shares of full rate.

    Attributes:
        sampling: stride -> cost of a network call.
        training: stride -> cost of a training step.
        by_tokens: whether a stage trains on as many more clips in a step as its stride says.
    """

    sampling: Mapping[int, float]
    training: Mapping[int, float]
    by_tokens: bool = False

    def of_training(self, strides: Sequence[int], stage_probs: Sequence[float]) -> float:
        """What a training clip costs in the mean over stages.

        Args:
            strides: r of each stage.
            stage_probs: how often each is trained, in steps; their sum is free.
        """
        sizes = strides if self.by_tokens else (1,) * len(strides)
        clips = [p * size for p, size in zip(stage_probs, sizes, strict=True)]
        costs = [self.training[r] for r in strides]
        return sum(n * cost for n, cost in zip(clips, costs, strict=True)) / sum(clips)


class Problem(NamedTuple):
    """What a search keeps fixed.

    Attributes:
        spectrum: of the clips.
        path: the noise path.
        solver: "euler" or "second_order".
        num_calls: network calls of a video.
        grid_power: one a stage; those that differ count for pyramids of so many stages alone.
        time_shift: of training and sampling times.
        overlap: L'/L of the jumps.
        line: "stagewise" or "marginal".
    """

    spectrum: ClipSpectrum
    path: Path
    solver: str
    num_calls: int
    grid_power: tuple[float, ...] = (1.0,)
    time_shift: float = 1.0
    overlap: float = 1.0
    line: str = "stagewise"


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
        self._jumps: dict[tuple, tuple[tuple[float, ...], tuple[float, ...]]] = {}

    def judge(
        self,
        setting: Setting,
        sampler: SamplerSpec | None = None,
        *,
        stage_probs: Sequence[float] = (),
    ) -> Candidate:
        """Measure one setting.

        Args:
            setting: the fields.
            sampler: with grids or jumps of its own; None: the problem's solver and powers.
            stage_probs: of each stage in training; () for equal ones.

        Raises:
            ValueError: for windows that cannot exist on this path, frames that do not fit, or
                grids of time that do not fit the windows.
        """
        pyramid, key = self.pyramid(setting), setting[:4]
        if key not in self._jumps:
            spectrum = self._problem.spectrum
            details = visible_details(spectrum, pyramid)
            self._jumps[key] = information_debts(spectrum, pyramid), details
        debts, details = self._jumps[key]
        strides, calls = setting.frame_strides, setting.steps_per_stage
        spent = sum(n * self._costs.sampling[r] for n, r in zip(calls, strides, strict=True))
        probs = stage_probs or (1.0,) * len(strides)
        return Candidate(
            setting=setting,
            error=self._videos.error(pyramid, sampler or self.sampler(calls)),
            debts=debts,
            visible_details=details,
            sampling_cost=spent / sum(calls),
            training_cost=self._costs.of_training(strides, probs),
        )

    def vanilla(self) -> Candidate:
        """Ordinary diffusion with as many calls."""
        return self.judge(Setting((1,), "stride", "nearest", (1.0,), (self._problem.num_calls,)))

    def candidates(
        self, ladders: Sequence[tuple[int, ...]], resamplings: Sequence[tuple[str, str]]
    ) -> Iterator[Candidate]:
        """Every setting of the grid that can exist.

        Args:
            ladders: strides of the stages, each.
            resamplings: names of D and U over time, each.

        Yields:
            Candidates, ladder by ladder.
        """
        for ladder, resampling in itertools.product(ladders, resamplings):
            calls = shared_calls(self._problem.num_calls, len(ladder))
            yield from self.with_windows(ladder, resampling, calls, WINDOW_PARTS)

    def with_windows(
        self,
        ladder: tuple[int, ...],
        resampling: tuple[str, str],
        calls: Sequence[tuple[int, ...]],
        parts: int,
    ) -> Iterator[Candidate]:
        """Every cut of [0, 1] into equal parts, shared out among the stages.

        Args:
            ladder: strides of the stages.
            resampling: D and U over time.
            calls: network calls of the stages, each.
            parts: number of parts; the windows' ends are multiples of 1/parts.

        Yields:
            Those candidates whose windows can exist.
        """
        for shares in compositions(parts, len(ladder)):
            fractions = tuple(share / parts for share in shares)
            try:
                self.pyramid(Setting(ladder, *resampling, fractions, ()))
            except ValueError:  # no window of such an end on this path
                continue
            for steps in calls:
                yield self.judge(Setting(ladder, *resampling, fractions, steps))

    def pyramid(self, setting: Setting) -> Pyramid:
        """The stages of a setting, of the frames that are looked at.

        Raises:
            ValueError: for windows that cannot exist on this path, or frames that do not fit.
        """
        problem = self._problem
        return _make_pyramid(
            problem.spectrum.num_frames,
            setting[:4],
            problem.path,
            problem.time_shift,
            problem.overlap,
            problem.line,
        )

    def sampler(self, calls: tuple[int, ...]) -> SamplerSpec:
        """The sampler of so many calls of each stage, with the problem's solver and power."""
        powers = self._problem.grid_power
        if len(set(powers)) == 1:
            powers = powers[:1]
        elif len(powers) != len(calls):
            powers = (1.0,)
        return SamplerSpec(steps_per_stage=calls, solver=self._problem.solver, grid_power=powers)


@functools.lru_cache(maxsize=4096)
def _make_pyramid(
    num_frames: int,
    setting: tuple[tuple[int, ...], str, str, tuple[float, ...]],
    path: Path,
    time_shift: float,
    overlap: float,
    line: str,
) -> Pyramid:
    strides, downsample, upsample, fractions = setting
    return make_pyramid(
        path,
        shape=(num_frames, 1, 1),
        strides=strides,
        stage_fractions=fractions,
        overlap=overlap,
        downsample=(downsample, "stride", "stride"),
        upsample=(upsample, "nearest", "nearest"),
        time_shift=time_shift,
        line=line,
    )
