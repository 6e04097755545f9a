"""Which instructions of a compiled program run, and how often: loops count as their trips."""

import re
from typing import NamedTuple

from tpdiff_jax.planning.hlo_text import Computation, Instruction, Module

_TRIPS = re.compile(r'known_trip_count[":{\s]+n[":\s]+(\d+)')
_DIRECTION = re.compile(r"direction=(\w+)")
_MOVES = ("copy", "bitcast", "copy-done", "copy-start", "convert", "reshape")


class Executed(NamedTuple):
    """An instruction, the computation that holds it, and how often one run executes it.

    `is_fused` instructions run inside a fusion: their operands and results stay in the chip.
    """

    instruction: Instruction
    computation: Computation
    times: int
    is_fused: bool


class Execution(NamedTuple):
    """What runs, and the names of loops whose trip count the text does not give (counted once)."""

    steps: list[Executed]
    unknown_loops: list[str]


def executed_instructions(module: Module) -> Execution:
    """List every instruction that one run of the program executes, with its count.

    A conditional counts as its longest branch.
    """
    execution = Execution([], [])
    _walk(module, module.computations[module.entry], 1, False, execution)
    return execution


def _walk(
    module: Module, computation: Computation, times: int, is_fused: bool, execution: Execution
) -> None:
    for instruction in computation.values():
        execution.steps.append(Executed(instruction, computation, times, is_fused))
        trips, inner = 1, instruction.called("calls")
        if instruction.opcode == "while":
            known, inner = trip_count(module, computation, instruction), instruction.called("body")
            if known is None:
                execution.unknown_loops.append(instruction.name)
            trips = 1 if known is None else known
        elif instruction.opcode == "conditional":
            inner = max(instruction.branches(), key=lambda name: len(module.computations[name]))
        elif instruction.opcode == "call":
            inner = instruction.called("to_apply")
        if inner in module.computations:
            within = is_fused or instruction.opcode == "fusion"
            _walk(module, module.computations[inner], times * trips, within, execution)


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
    """Return how often a loop's body runs, or None when the text does not tell.

    XLA states it for some backends; else it follows from a counter that starts at a constant and
    is compared with another, as `lax.scan` compiles to.

    Args:
        module: the program.
        computation: where the loop stands.
        loop: the `while`.

    Returns:
        A count, 0 or more, or None.
    """
    stated = _TRIPS.search(loop.attributes)
    if stated:
        return int(stated.group(1))
    condition = module.computations.get(loop.called("condition") or "", {})
    test = next((i for i in condition.values() if i.is_root), None)
    if test is None or test.opcode != "compare" or len(test.operands) != 2:
        return None
    counter, bound = (condition.get(name) for name in test.operands)
    direction = _DIRECTION.search(test.attributes)
    is_up = direction is not None and direction.group(1) == "LT"
    if not is_up or counter is None or counter.opcode != "get-tuple-element":
        return None
    end = _constant(condition, bound)
    index = re.search(r"index=(\d+)", counter.attributes)
    start = _loop_input(computation, loop, int(index.group(1)) if index else 0)
    return None if end is None or start is None else max(end - start, 0)


def _loop_input(computation: Computation, loop: Instruction, index: int) -> int | None:
    """The constant that a loop starts with at one place of its tuple."""
    state = computation.get(loop.operands[0])
    if state is None or state.opcode != "tuple":
        return None
    return _constant(computation, computation.get(state.operands[index]))


def _constant(computation: Computation, instruction: Instruction | None) -> int | None:
    """The integer an instruction holds, seen through copies."""
    while instruction is not None and instruction.opcode in _MOVES:
        instruction = computation.get(instruction.operands[0])
    if instruction is None or instruction.opcode != "constant":
        return None
    return int(instruction.text) if re.fullmatch(r"-?\d+", instruction.text) else None
