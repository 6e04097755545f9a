"""Reads a compiled program's HLO text: computations, instructions, shapes. Nothing is evaluated.

Only what cost questions need is kept. The text is XLA's own print of an optimised module, one
instruction a line:

    %fusion.3 = (f32[8,128]{1,0:T(8,128)S(1)}, ...) fusion(%a, %b), kind=kLoop, calls=%computation.7
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_NAME = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)"
)
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "c64": 64, "c128": 128}


class ArrayShape(NamedTuple):
    """One array: element type, dimensions, and the memory it lies in (0 is the main one)."""

    dtype: str
    dims: tuple[int, ...]
    space: int

    @property
    def num_bytes(self) -> float:
        """Size without padding."""
        bits = _BITS.get(self.dtype)
        if bits is None:
            digits = re.search(r"\d+", self.dtype)  # s32, u8, f16, f8e4m3fn
            bits = int(digits.group()) if digits else 0
        return math.prod(self.dims) * bits / 8


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        name: its name, without the percent sign.
        opcode: such as `fusion` or `all-gather-start`.
        shapes: the arrays of its result; several when it is a tuple.
        operands: names of its operands.
        text: what stands between the operands' parentheses.
        attributes: the rest of the line.
        is_root: whether it is its computation's result.
    """

    name: str
    opcode: str
    shapes: tuple[ArrayShape, ...]
    operands: tuple[str, ...]
    text: str
    attributes: str
    is_root: bool

    def called(self, role: str) -> str | None:
        """Name of the computation called as `role`: `calls`, `body`, `condition`, ..."""
        return next((name for r, name in _CALLED.findall(self.attributes) if r == role), None)

    def branches(self) -> list[str]:
        """Names of the computations that a conditional chooses from."""
        found = _BRANCHES.search(self.attributes)
        if found:
            return _OPERAND.findall(found.group(1))
        pair = (self.called("true_computation"), self.called("false_computation"))
        return [name for name in pair if name]


Computation = dict[str, Instruction]


class Module(NamedTuple):
    """All computations by name, and the name of the entry."""

    computations: dict[str, Computation]
    entry: str


def parse_module(text: str) -> Module:
    """Read the text of a compiled module.

    Raises:
        ValueError: when it holds no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header and not line.startswith(" "):
            current = computations.setdefault(header.group(2), {})
            entry = header.group(2) if header.group(1) else entry
        elif line == "}":  # a line may also start so inside a kernel's attributes
            current = None
        elif current is not None and (instruction := parse_instruction(line)):
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text holds no HLO entry computation")
    return Module(computations, entry)


def parse_instruction(line: str) -> Instruction | None:
    """Read one line; None when it is no instruction."""
    name = _NAME.match(line)
    if not name:
        return None
    start = name.end()
    end = _closing(line, start) + 1 if line[start] == "(" else line.find(" ", start)
    opening = line.find("(", end)
    if end <= 0 or opening < 0:
        return None
    closing = _closing(line, opening)
    inner = line[opening + 1 : closing]
    return Instruction(
        name=name.group(2),
        opcode=line[end:opening].strip(),
        shapes=tuple(array_shapes(line[start:end])),
        operands=tuple(_OPERAND.findall(inner)),
        text=inner,
        attributes=line[closing + 1 :],
        is_root=name.group(1) is not None,
    )


def array_shapes(text: str) -> Iterator[ArrayShape]:
    """Yield the arrays of a printed shape, tuples flattened."""
    for dtype, dims, layout in _ARRAY.findall(text):
        space = _SPACE.search(layout)
        sizes = tuple(int(size) for size in dims.split(",") if size)
        yield ArrayShape(dtype, sizes, int(space.group(1)) if space else 0)


def _closing(line: str, opening: int) -> int:
    """Index of the parenthesis that closes the one at `opening`."""
    depth = 0
    for i in range(opening, len(line)):
        depth += (line[i] == "(") - (line[i] == ")")
        if depth == 0:
            return i
    return len(line) - 1
