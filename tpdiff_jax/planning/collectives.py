"""Messages between chips in a compiled program: kinds, bytes, and whether compute hides them."""

import math
import operator
import re
from collections.abc import Iterable
from typing import NamedTuple

from tpdiff_jax.planning.hlo_loops import Executed
from tpdiff_jax.planning.hlo_text import Computation, Instruction

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_WORK = {"fusion", "convolution", "dot", "custom-call", "while"}
_IOTA_GROUPS = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")
_LISTED_GROUP = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_MESH_GROUPS = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\([^{]*\))? ?\{([^}]*)\}"
)
_PAIRS = re.compile(r"source_target_pairs=\{\{")


class CollectiveCost(NamedTuple):
    """All collectives of one kind in one run of the program.

    Attributes:
        kind: one of `KINDS`.
        num_messages: executions, loops multiplied out.
        sent_bytes: what each chip sends over all of them.
        num_overlapped: executions that start, let other work run, and finish later.
    """

    kind: str
    num_messages: int
    sent_bytes: float
    num_overlapped: int


def collective_costs(steps: Iterable[Executed], num_devices: int) -> list[CollectiveCost]:
    """Add up the collectives of a program by kind, in the order of `KINDS`.

    Args:
        steps: the executed instructions.
        num_devices: devices of the program: the group where the text names none.
    """
    costs = []
    for step in steps:
        kind = collective_kind(step)
        if kind is not None:
            sent = sent_bytes(kind, step, group_size(step.instruction, num_devices))
            hidden = step.times if is_overlapped(step.instruction, step.computation) else 0
            costs.append(CollectiveCost(kind, step.times, step.times * sent, hidden))
    return by_kind(costs)


def by_kind(costs: Iterable[CollectiveCost]) -> list[CollectiveCost]:
    """Add up costs of the same kind, in the order of `KINDS`.

    Args:
        costs: of one program, or of several that run one after another.
    """
    sums: dict[str, CollectiveCost] = {}
    for kind, *counts in costs:
        before = sums.get(kind, CollectiveCost(kind, 0, 0.0, 0))[1:]
        sums[kind] = CollectiveCost(kind, *map(operator.add, before, counts))
    return [sums[kind] for kind in KINDS if kind in sums]


def collective_kind(step: Executed) -> str | None:
    """Return the kind of a collective; None for anything else, the end of a started one included.

    TPU programs have no reduce-scatter by name: it is a fusion of an all-reduce whose result is
    sliced at once, and only the slice travels.
    """
    kind = step.instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    if kind == "all-reduce" and step.is_fused and _is_sliced(step):
        return "reduce-scatter"
    return kind


def _is_sliced(step: Executed) -> bool:
    users = [i for i in step.computation.values() if step.instruction.name in i.operands]
    return bool(users) and all(user.opcode == "dynamic-slice" for user in users)


def group_size(instruction: Instruction, num_devices: int) -> int:
    """Return how many devices take part in one collective together."""
    text = instruction.attributes
    if _PAIRS.search(text):
        return 2
    if found := _IOTA_GROUPS.search(text):
        return int(found.group(2))
    if found := _LISTED_GROUP.search(text):
        return len(found.group(1).split(","))
    if found := _MESH_GROUPS.search(text):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", found.group(1))}
        return math.prod(sizes[name] for name in re.findall(r"'([^']+)'", found.group(2)))
    return num_devices


def sent_bytes(kind: str, step: Executed, size: int) -> float:
    """Return what each chip sends in one collective over a group of `size`, by a ring.

    all-gather, reduce-scatter, all-to-all: (n - 1)/n of the whole    all-reduce: twice that
    collective-permute: the array

    Args:
        kind: what `collective_kind` says.
        step: the instruction and the computation it stands in.
        size: n, chips of the group.

    Returns:
        Bytes of one execution.
    """
    given = sum(
        shape.num_bytes
        for name in step.instruction.operands
        if name in step.computation
        for shape in step.computation[name].shapes
    )
    share = (size - 1) / size
    return {
        "all-gather": given * (size - 1),
        "all-reduce": 2.0 * given * share,
        "reduce-scatter": given * share,
        "all-to-all": given * share,
        "collective-permute": given,
    }[kind]


def is_overlapped(start: Instruction, computation: Computation) -> bool:
    """Whether other work stands between a started collective and its end in the schedule."""
    if not start.opcode.endswith("-start"):
        return False
    names = list(computation)
    for name in names[names.index(start.name) + 1 :]:
        instruction = computation[name]
        if start.name in instruction.operands:
            return False
        if instruction.opcode in _WORK:
            return True
    return False
