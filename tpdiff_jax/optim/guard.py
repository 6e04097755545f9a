"""Which steps are applied: finite ones that do not stand out from the ones applied before.

    skip  <=>  loss or |grad| is not finite,  or  exceeds spike_factor * median(last accepted ones)

Stages differ in loss, so each is compared with its own steps. A median, not a mean, and accepted
steps only: a NaN in the window would hide every later spike or take every later step for one, and
a rejected spike that moved the threshold would let the next one through.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from tpdiff_jax.checks import check_at_least
from tpdiff_jax.types import Array

MAX_WINDOW = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardSpec:
    """Fields of the config group `guard`.

    Attributes:
        spike_factor: a step whose loss or gradient norm exceeds this many times the median is
            skipped; 0 turns that off. Non-finite steps are always skipped.
        window: accepted steps of a stage that the median is taken over.
        warmup_steps: accepted steps of a stage before spikes are looked for, at most `window`.
        max_bad_steps: skipped steps in a row, over all stages or of one stage, that stop the run.
    """

    spike_factor: float = 0.0
    window: int = 64
    warmup_steps: int = 16
    max_bad_steps: int = 10

    def __post_init__(self) -> None:
        if self.spike_factor != 0 and not 1 < self.spike_factor < float("inf"):
            raise ValueError(f"guard.spike_factor={self.spike_factor} must be 0 or above 1")
        for field in ("window", "warmup_steps", "max_bad_steps"):
            check_at_least(f"guard.{field}", getattr(self, field), 1)
        if self.window > MAX_WINDOW:
            raise ValueError(f"guard.window={self.window} must not exceed {MAX_WINDOW}")
        if self.warmup_steps > self.window:
            raise ValueError(
                f"guard.warmup_steps={self.warmup_steps} must not exceed guard.window={self.window}"
            )


class GuardState(NamedTuple):
    """What the guard remembers, part of the checkpoint.

    Attributes:
        accepted: loss and gradient norm of each stage's last accepted steps, the newest last,
            float32 [stages, 2, window]; infinite where there is none yet.
        bad_in_a_row: steps skipped since the last accepted one, int32.
        bad_in_a_row_of_stage: the same within the steps of each stage, int32 [stages]: a stage
            that fails between good steps of the others would else never stop a run.
    """

    accepted: Array
    bad_in_a_row: Array
    bad_in_a_row_of_stage: Array


class Verdict(NamedTuple):
    """What the guard says of a step: bools, and the longest row of bad steps it ends, int32."""

    is_good: Array
    is_spike: Array
    bad_in_a_row: Array


class BadStep(NamedTuple):
    """A skipped step: its number counted from 0, stage, loss, gradient norm."""

    step: int
    stage: int
    loss: float
    grad_norm: float
    is_spike: bool

    def __str__(self) -> str:
        reason = "a spike" if self.is_spike else "not finite"
        return (
            f"skipped step {self.step + 1} (stage {self.stage}), {reason}: "
            f"loss {self.loss:.6g}, gradient norm {self.grad_norm:.6g}"
        )


class TooManyBadSteps(Exception):
    """`guard.max_bad_steps` steps in a row were skipped.

    Attributes:
        bad_in_a_row: how many.
        steps: the last of them, those that this process has seen.
    """

    def __init__(self, bad_in_a_row: int, steps: tuple[BadStep, ...]) -> None:
        last = f"; the last: {steps[-1]}" if steps else ""
        super().__init__(f"{bad_in_a_row} bad steps in a row{last}")
        self.bad_in_a_row = bad_in_a_row
        self.steps = steps


def init_guard(spec: GuardSpec, num_stages: int) -> GuardState:
    """Return the guard's memory before the first step."""
    return GuardState(
        accepted=jnp.full((num_stages, 2, spec.window), jnp.inf, jnp.float32),
        bad_in_a_row=jnp.zeros((), jnp.int32),
        bad_in_a_row_of_stage=jnp.zeros((num_stages,), jnp.int32),
    )


def judge_step(
    spec: GuardSpec,
    state: GuardState,
    stage_index: int | Array,
    loss: Array,
    grad_norm: Array,
) -> tuple[Verdict, GuardState]:
    """Judge one step; a bad one leaves no trace but in the counts of bad steps.

    Args:
        spec: limits; static.
        state: memory before the step.
        stage_index: the step's stage.
        loss: its loss, a scalar.
        grad_norm: its gradient norm, a scalar.

    Returns:
        The verdict and the memory after the step.
    """
    measured = jnp.stack([loss, grad_norm]).astype(jnp.float32)
    accepted = state.accepted[stage_index]  # [2, window]
    num_accepted = jnp.sum(jnp.isfinite(accepted[0]))
    median = jnp.sort(accepted)[:, num_accepted // 2]  # the empty places sort last
    is_finite = jnp.all(jnp.isfinite(measured))
    is_above = jnp.any(measured > spec.spike_factor * median)
    is_looking = (spec.spike_factor > 0) & (num_accepted >= spec.warmup_steps)
    is_spike = is_finite & is_above & is_looking
    is_good = is_finite & ~is_spike
    newer = jnp.concatenate([accepted[:, 1:], measured[:, None]], axis=1)
    bad = jnp.where(is_good, 0, state.bad_in_a_row + 1)
    bad_of_stage = jnp.where(is_good, 0, state.bad_in_a_row_of_stage[stage_index] + 1)
    memory = GuardState(
        accepted=state.accepted.at[stage_index].set(jnp.where(is_good, newer, accepted)),
        bad_in_a_row=bad,
        bad_in_a_row_of_stage=state.bad_in_a_row_of_stage.at[stage_index].set(bad_of_stage),
    )
    return Verdict(is_good, is_spike, jnp.maximum(bad, bad_of_stage)), memory
