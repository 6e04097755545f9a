"""`model.remat="auto"`: the policy with the least work whose training step fits the device.

    none    keeps everything          dots    keeps products, computes the rest again
    full    keeps nothing of a block, computes it again

are tried in this order: the program with the most tokens is compiled, and the compiler says what it
needs. `offload` is not tried: what it costs depends on the way to the host, which nobody measures.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from tpdiff_jax.devices.processes import numbers_of_main
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.experiment.experiment import Experiment, Program
from tpdiff_jax.experiment.remat_field import is_auto_remat, with_remat
from tpdiff_jax.planning.chips import device_memory
from tpdiff_jax.planning.program_cost import DoesNotFit
from tpdiff_jax.planning.summary import gibibytes
from tpdiff_jax.training.step_cost import gradient_peak

LEAST_WORK_FIRST = ("none", "dots", "full")


class RematChoice(NamedTuple):
    """What was chosen, and why.

    Attributes:
        policy: one of `LEAST_WORK_FIRST`.
        needed_bytes: policy -> bytes that its training step needs on a device, of those that were
            compiled; None where the compiler refused it and did not say.
        memory_bytes: of a device; None where it is not known.
        reason: one line.
    """

    policy: str
    needed_bytes: dict[str, float | None]
    memory_bytes: float | None
    reason: str


def build_with_remat(
    config: Any,
    build: Callable[[Any], Experiment],
    memory_bytes: float | None,
) -> tuple[Experiment, RematChoice | None]:
    """Build an experiment that trains, with a policy in the place of the word.

    Args:
        config: every field of every group.
        build: makes the experiment of a config on the devices in question.
        memory_bytes: of one of them; None where it is not known.

    Returns:
        The experiment, whose config has the policy, and the choice; None where the config has no
        word.
    """
    experiment = build(config)  # windows are chosen from the clips once, for all policies
    if not is_auto_remat(config):
        return experiment, None
    built = {"none": experiment}

    def built_with(policy: str) -> Experiment:
        if policy not in built:
            built[policy] = build(with_remat(experiment.config, policy))
        return built[policy]

    choice = choose_remat(lambda policy: peak_bytes(built_with(policy)), memory_bytes)
    logging.info("model.remat: %s", choice.reason)
    return built_with(choice.policy), choice


def build_for_training(config: Any) -> Experiment:
    """Build an experiment on all devices of all processes, as training runs it.

    Args:
        config: every field of every group.

    Raises:
        ValueError: as `build_experiment`.
    """
    memory_bytes = device_memory(jax.local_devices()[0])
    return build_with_remat(config, build_experiment, memory_bytes)[0]


def choose_remat(peak_of: Callable[[str], float], memory_bytes: float | None) -> RematChoice:
    """Choose the first policy of `LEAST_WORK_FIRST` that fits; the last where none does.

    Args:
        peak_of: policy -> bytes that a step needs; raises DoesNotFit.
        memory_bytes: of a device; None where it is not known.
    """
    needed: dict[str, float | None] = {}
    if memory_bytes is None:
        reason = "none, as the memory of a device is not known here"
        return RematChoice("none", needed, memory_bytes, reason)
    for policy in LEAST_WORK_FIRST:
        try:
            peak = needed[policy] = peak_of(policy)
        except DoesNotFit as error:
            needed[policy] = error.needed
            continue
        if peak <= memory_bytes:
            break
    policy = LEAST_WORK_FIRST[int(numbers_of_main(np.int32(LEAST_WORK_FIRST.index(policy))))]
    listed = ", ".join(f"{name} {_needed(size)}" for name, size in needed.items())
    fits = (needed.get(policy) or np.inf) <= memory_bytes
    why = "is the least work that fits" if fits else "needs the least memory, and does not fit"
    reason = f"{policy} {why} {gibibytes(memory_bytes)} a device; needed: {listed}"
    return RematChoice(policy, needed, memory_bytes, reason)


def peak_bytes(experiment: Experiment) -> float:
    """Return the bytes that the training step with the most tokens needs on each device.

    Args:
        experiment: compiled for its own mesh; nothing runs.

    Raises:
        DoesNotFit: when the compiler says that it needs more than a device has.
    """
    program = max(reversed(experiment.programs), key=num_tokens)  # of equals the full rate
    return gradient_peak(program)  # no policy changes what the update takes


def num_tokens(program: Program) -> int:
    """Tokens of one step of a program."""
    return program.batch_size * program.experiment.network.num_tokens(program.stage_shape)


def _needed(size: float | None) -> str:
    return "more than there is" if size is None else gibibytes(size)
