"""Bytes that a compiled program moves to and from a chip's main memory.

Every instruction outside a fusion reads its operands and writes its result, but for those that
the compiler keeps in faster memory (another memory space than 0). Slices of larger arrays count
as the slice: a scan over stacked layers reads one layer a trip, not all of them.
"""

from collections.abc import Iterable

from tpdiff_jax.planning.hlo_loops import Executed
from tpdiff_jax.planning.hlo_text import ArrayShape, Computation, Instruction, Module

# Names for arrays, control flow whose bodies are counted by themselves, and ends of started moves.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "after-all", "partition-id", "replica-id", "iota", "optimization-barrier",
}  # fmt: skip
_SLICES = {"dynamic-slice", "slice", "gather"}


def memory_traffic(module: Module, steps: Iterable[Executed]) -> float:
    """Return the bytes that one run reads from and writes to main memory on one device."""
    total = 0.0
    for step in steps:
        instruction = step.instruction
        if step.is_fused or instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
            continue
        if instruction.opcode == "custom-call" and "AllocateBuffer" in instruction.attributes:
            continue
        total += step.times * _traffic(module, instruction, step.computation)
    return total


def _traffic(module: Module, instruction: Instruction, computation: Computation) -> float:
    if instruction.opcode == "copy-start":  # (target, source, semaphore)
        return _main_bytes(instruction.shapes[:2])
    if instruction.opcode == "slice-start":  # ((source), target, semaphore)
        source, target, *_ = instruction.shapes
        return target.num_bytes * ((source.space == 0) + (target.space == 0))
    read = 0.0
    for index, name in enumerate(instruction.operands):
        operand = computation.get(name)
        if operand is not None and _main_bytes(operand.shapes):
            used = _bytes_read(module, instruction, index)
            read += _main_bytes(operand.shapes) if used is None else used
    return read + _bytes_written(module, instruction, computation)


def _bytes_read(module: Module, user: Instruction, index: int) -> float | None:
    """What `user` reads of its operand `index`; None for all of it."""
    if user.opcode in _SLICES and index == 0:
        return _all_bytes(user.shapes)
    if user.opcode == "dynamic-update-slice" and index == 0:
        return 0.0
    inner = module.computations.get(user.called("calls") or "")
    if user.opcode != "fusion" or inner is None:
        return None
    parameter = next(
        (i for i in inner.values() if i.opcode == "parameter" and i.text == str(index)), None
    )
    return None if parameter is None else _bytes_used(module, inner, parameter)


def _bytes_used(module: Module, computation: Computation, array: Instruction) -> float | None:
    """What a computation reads of one of its arrays; None for all of it."""
    total = 0.0
    for user in computation.values():
        if array.name not in user.operands:
            continue
        if user.opcode == "bitcast":
            used = _bytes_used(module, computation, user)
        else:
            used = _bytes_read(module, user, user.operands.index(array.name))
        if used is None:
            return None
        total += used
    return total


def _bytes_written(module: Module, instruction: Instruction, computation: Computation) -> float:
    """What goes to main memory: the update alone where an array is updated in place."""
    if instruction.opcode == "dynamic-update-slice":
        update = computation.get(instruction.operands[1])
        return _main_bytes(update.shapes) if update else 0.0
    inner = module.computations.get(instruction.called("calls") or "")
    if instruction.opcode != "fusion" or inner is None:
        return _main_bytes(instruction.shapes)
    root = next(i for i in inner.values() if i.is_root)
    results = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
    if len(results) != len(instruction.shapes):
        return _main_bytes(instruction.shapes)
    pairs = zip(results, instruction.shapes, strict=True)
    return sum(_result_bytes(inner, result, shape) for result, shape in pairs)


def _result_bytes(inner: Computation, result: Instruction, shape: ArrayShape) -> float:
    while result.opcode == "bitcast" and result.operands[0] in inner:
        result = inner[result.operands[0]]
    if result.opcode == "dynamic-update-slice" and result.operands[1] in inner:
        return _all_bytes(inner[result.operands[1]].shapes) if shape.space == 0 else 0.0
    return _main_bytes((shape,))


def _main_bytes(shapes: Iterable[ArrayShape]) -> float:
    return sum(shape.num_bytes for shape in shapes if shape.space == 0)


def _all_bytes(shapes: Iterable[ArrayShape]) -> float:
    return sum(shape.num_bytes for shape in shapes)
