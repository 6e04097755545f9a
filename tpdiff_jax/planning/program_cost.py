"""One compiled program's figures on each device: memory, executed FLOPs, traffic, messages."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax

from tpdiff_jax.planning.collectives import CollectiveCost, by_kind, collective_costs
from tpdiff_jax.planning.hlo_loops import executed_instructions
from tpdiff_jax.planning.hlo_text import parse_module
from tpdiff_jax.planning.memory_traffic import memory_traffic
from tpdiff_jax.planning.program_flops import matmul_flops

_UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
_OOM = re.compile(r"\(?([\d.]+)([KMGT]?)\)? exceeds available HBM.*?\(?([\d.]+)([KMGT]?)\)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes of device memory, by the compiler's own analysis.

    Attributes:
        argument: inputs; for a training step the state and the batch.
        output: results, those that reuse an input's memory included.
        alias: inputs reused for outputs.
        temporary: everything in between.
        code: the program.
        peak: the most that is in use at once; on CPU and GPU, where a program reserves its
            temporaries as one block, all parts together.
    """

    argument: float
    output: float
    alias: float
    temporary: float
    code: float
    peak: float

    def beside(self, held: float) -> "MemoryUse":
        """Count what waits in memory while the program runs among its arguments.

        Args:
            held: bytes.
        """
        return dataclasses.replace(self, argument=self.argument + held, peak=self.peak + held)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramCost:
    """What one run of a program takes, on each device unless said otherwise.

    Attributes:
        memory: bytes held.
        executed_flops: matrix-product FLOPs, all devices together.
        traffic_bytes: bytes read from and written to main memory; None where the compiler prints
            no program.
        collectives: messages by kind; None likewise.
        unknown_loops: loops whose length the compiler does not print; they count once.
    """

    memory: MemoryUse
    executed_flops: float
    traffic_bytes: float | None
    collectives: list[CollectiveCost] | None
    unknown_loops: list[str]

    def then(self, second: "ProgramCost") -> "ProgramCost":
        """What this program and a second one after it take: sums, and the larger memory.

        Args:
            second: for the same devices; each counts what waits beside it.
        """
        traffic = collectives = None
        if self.traffic_bytes is not None and second.traffic_bytes is not None:
            traffic = self.traffic_bytes + second.traffic_bytes
        if self.collectives is not None and second.collectives is not None:
            collectives = by_kind([*self.collectives, *second.collectives])
        return ProgramCost(
            memory=max(self.memory, second.memory, key=lambda memory: memory.peak),
            executed_flops=self.executed_flops + second.executed_flops,
            traffic_bytes=traffic,
            collectives=collectives,
            unknown_loops=[*self.unknown_loops, *second.unknown_loops],
        )


class DoesNotFit(Exception):
    """The compiler found that a program needs more memory than a device has.

    Attributes:
        needed: bytes needed, or None where the compiler does not say.
    """

    def __init__(self, message: str, needed: float | None) -> None:
        """Keep what the compiler said."""
        super().__init__(message)
        self.needed = needed


def program_cost(traced: jax.stages.Traced, devices: Sequence[jax.Device]) -> ProgramCost:
    """Compile a traced program and read its cost off what the compiler says.

    Args:
        traced: the program.
        devices: what it is compiled for.

    Raises:
        DoesNotFit: when it needs more memory than a device has.
    """
    compiled = compile_or_refuse(traced)
    flops = matmul_flops(traced.jaxpr.jaxpr)
    memory = memory_use(compiled.memory_analysis(), devices[0].platform)
    try:
        module = parse_module(compiled.as_text() or "")
    except jax.errors.JaxRuntimeError:  # libtpu cannot print every program for every chip
        return ProgramCost(
            memory=memory,
            executed_flops=flops,
            traffic_bytes=None,
            collectives=None,
            unknown_loops=[],
        )
    execution = executed_instructions(module)
    return ProgramCost(
        memory=memory,
        executed_flops=flops,
        traffic_bytes=memory_traffic(module, execution.steps),
        collectives=collective_costs(execution.steps, len(devices)),
        unknown_loops=execution.unknown_loops,
    )


def compile_or_refuse(traced: jax.stages.Traced) -> jax.stages.Compiled:
    """Compile; raise DoesNotFit where the compiler runs out of the device's memory."""
    try:
        return traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if "exceeds available HBM" not in text and "RESOURCE_EXHAUSTED" not in text:
            raise
        raise DoesNotFit(text.splitlines()[0], needed_bytes(text)) from error


def needed_bytes(message: str) -> float | None:
    """Return the bytes that an out-of-memory message says were needed."""
    found = _OOM.search(message)
    return float(found.group(1)) * _UNITS[found.group(2)] if found else None


def memory_use(stats: Any, platform: str) -> MemoryUse:
    """Return the compiler's memory analysis.

    Its own peak is taken on TPUs only, where it also decides what fits. On CPUs it is that of the
    arguments alone: 126 MiB for a step with 241 MiB of temporaries, which took 392 when run.

    Args:
        stats: what `memory_analysis` of a compiled program returns.
        platform: of its devices.
    """
    parts = {
        "argument": float(stats.argument_size_in_bytes),
        "output": float(stats.output_size_in_bytes),
        "alias": float(stats.alias_size_in_bytes),
        "temporary": float(stats.temp_size_in_bytes),
        "code": float(stats.generated_code_size_in_bytes),
    }
    together = sum(parts.values()) - 2.0 * parts["alias"]
    reported = float(getattr(stats, "peak_memory_in_bytes", 0)) if platform == "tpu" else 0.0
    return MemoryUse(**parts, peak=reported or together)
