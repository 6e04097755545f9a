"""Which pyramid stage a training step trains, on clips of which shape: pure, known on the host.

Both are functions of (seed, step). Every host computes the same without communication, so that
shapes are static and the loop never waits for the device. Stages come in shuffled blocks of 4 K
steps by systematic sampling: within a block each stage's count is within one of its expectation
(exact for equal probabilities), and over blocks the expectation is `train.stage_probs`.

Buckets, where clips have several shapes, come in shuffled rounds of 100 B steps, in proportion to
their clips. As every round is alike, how often a bucket's turn has come before a step needs no
count, and its clips are used one after another.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_BLOCKS_PER_STAGE = 4
_STEPS_PER_BUCKET = 100
_EDGE = 1e-9  # off the ends of (0, 1), where rounding would move steps of equal stages


def validate_stage_probs(stage_probs: Sequence[float], num_stages: int) -> tuple[float, ...]:
    """Return normalised probabilities; `()` means uniform.

    Raises:
        ValueError: naming `train.stage_probs` when length, sign or sum are wrong.
    """
    if not stage_probs:
        return (1.0 / num_stages,) * num_stages
    probs = np.asarray(stage_probs, np.float64)
    if probs.shape != (num_stages,) or not np.all(np.isfinite(probs)) or np.any(probs <= 0):
        raise ValueError(
            f"train.stage_probs={tuple(stage_probs)} must be () or {num_stages} positive numbers, "
            "one for each stage of pyramid.strides"
        )
    return tuple((probs / probs.sum()).tolist())


def stage_of_step(seed: int, step: int, stage_probs: Sequence[float]) -> int:
    """Return the stage index that step `step` (counted from 0) trains.

    Args:
        seed: `train.seed`.
        step: number of completed steps before this one.
        stage_probs: normalised probabilities, one a stage.
    """
    block_length = _BLOCKS_PER_STAGE * len(stage_probs)
    block = _block(seed, step // block_length, tuple(stage_probs))
    return block[step % block_length]


class Turn(NamedTuple):
    """A step's bucket, and how many steps before it had the same."""

    bucket: int
    rank: int


def steps_of_round(num_clips: Sequence[int]) -> tuple[int, ...]:
    """Return how many steps of a round each bucket gets: at least one, in proportion to its clips.

    Args:
        num_clips: training clips of each bucket; one bucket is a round of one step.
    """
    if len(num_clips) == 1:
        return (1,)
    length, total = _STEPS_PER_BUCKET * len(num_clips), sum(num_clips)
    return tuple(max(1, round(length * number / total)) for number in num_clips)


def turn_of_step(seed: int, step: int, bucket_steps: Sequence[int]) -> Turn:
    """Return whose turn step `step` (counted from 0) is.

    Args:
        seed: `train.seed`.
        step: number of completed steps before this one.
        bucket_steps: what `steps_of_round` returns.
    """
    if len(bucket_steps) == 1:
        return Turn(0, step)
    round_index, place = divmod(step, sum(bucket_steps))
    bucket, rank = _round(seed, round_index, tuple(bucket_steps))[place]
    return Turn(bucket, round_index * bucket_steps[bucket] + rank)


def program_of_step(
    seed: int, step: int, stage_probs: Sequence[float], bucket_steps: Sequence[int]
) -> int:
    """Return which of the programs a step runs, in the order of stages within buckets.

    Args:
        seed: `train.seed`.
        step: number of completed steps before this one.
        stage_probs: normalised probabilities, one a stage.
        bucket_steps: what `steps_of_round` returns.

    Returns:
        Index into `Experiment.programs`.
    """
    bucket = turn_of_step(seed, step, bucket_steps).bucket
    return len(stage_probs) * bucket + stage_of_step(seed, step, stage_probs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipsOfStep:
    """The clips that one process renders for each step: a pure function of the step.

    Every step owns as many clip numbers as the largest batch has; a stage of smaller batches uses
    the first of them. So the numbers of a step need no count of the steps before it. With several
    buckets they are those of `data.buckets`, and steps are counted within the bucket.

    Attributes:
        seed: `train.seed`.
        stage_probs: normalised probabilities, one a stage.
        rows: of each stage, the rows of its global batch that lie on this process's devices.
        clips_per_step: clips in the largest global batch.
        bucket_steps: what `steps_of_round` returns.
    """

    seed: int
    stage_probs: tuple[float, ...]
    rows: tuple[tuple[int, ...], ...]
    clips_per_step: int
    bucket_steps: tuple[int, ...] = (1,)

    def stage(self, step: int) -> int:
        """Return the stage that step `step` trains."""
        return stage_of_step(self.seed, step, self.stage_probs)

    def __call__(self, step: int) -> list[int]:
        """Return the numbers of this process's clips of step `step`, in order of their rows."""
        bucket, rank = turn_of_step(self.seed, step, self.bucket_steps)
        first, num_buckets = rank * self.clips_per_step, len(self.bucket_steps)
        return [num_buckets * (first + row) + bucket for row in self.rows[self.stage(step)]]


@functools.lru_cache(maxsize=8)
def _block(seed: int, block_index: int, stage_probs: tuple[float, ...]) -> tuple[int, ...]:
    num_stages = len(stage_probs)
    length = _BLOCKS_PER_STAGE * num_stages
    rng = np.random.default_rng([seed, block_index, 0x57A6E])
    u = (rng.permutation(length) + rng.uniform(_EDGE, 1.0 - _EDGE)) / length
    stages = np.searchsorted(np.cumsum(stage_probs), u, side="right")
    return tuple(np.minimum(stages, num_stages - 1).tolist())


@functools.lru_cache(maxsize=8)
def _round(seed: int, round_index: int, bucket_steps: tuple[int, ...]) -> tuple[Turn, ...]:
    rng = np.random.default_rng([seed, round_index, 0xB0C4E7])
    order = rng.permutation(np.repeat(np.arange(len(bucket_steps)), bucket_steps))
    rank = np.zeros(len(order), int)
    for bucket, steps in enumerate(bucket_steps):
        rank[order == bucket] = np.arange(steps)
    return tuple(map(Turn, order.tolist(), rank.tolist()))
