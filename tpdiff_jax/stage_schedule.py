"""Which pyramid stage a training step trains: a pure function of (seed, step), known on the host.

Every host computes the same stage without communication, so that shapes are static and the loop
never waits for the device. Stages come in shuffled blocks of 4 K steps by systematic sampling:
within a block each stage's count is within one of its expectation (exact for equal
probabilities), and over blocks the expectation is `train.stage_probs`.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

_BLOCKS_PER_STAGE = 4


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
            "one for each stage of pyramid.frame_strides"
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipsOfStep:
    """The clips that one process renders for each step: a pure function of the step.

    Every step owns as many clip numbers as the largest batch has; a stage of smaller batches uses
    the first of them. So the numbers of a step need no count of the steps before it.

    Attributes:
        seed: `train.seed`.
        stage_probs: normalised probabilities, one a stage.
        rows: of each stage, the rows of its global batch that lie on this process's devices.
        clips_per_step: clips in the largest global batch.
    """

    seed: int
    stage_probs: tuple[float, ...]
    rows: tuple[tuple[int, ...], ...]
    clips_per_step: int

    def stage(self, step: int) -> int:
        """Return the stage that step `step` trains."""
        return stage_of_step(self.seed, step, self.stage_probs)

    def __call__(self, step: int) -> list[int]:
        """Return the numbers of this process's clips of step `step`, in order of their rows."""
        first = step * self.clips_per_step
        return [first + row for row in self.rows[self.stage(step)]]


@functools.lru_cache(maxsize=8)
def _block(seed: int, block_index: int, stage_probs: tuple[float, ...]) -> tuple[int, ...]:
    num_stages = len(stage_probs)
    length = _BLOCKS_PER_STAGE * num_stages
    rng = np.random.default_rng([seed, block_index, 0x57A6E])
    u = (rng.permutation(length) + rng.uniform(0.01, 0.99)) / length
    stages = np.searchsorted(np.cumsum(stage_probs), u, side="right")
    return tuple(np.minimum(stages, num_stages - 1).tolist())
