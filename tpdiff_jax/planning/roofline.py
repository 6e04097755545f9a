"""The least time a program can take on a chip, and hence the most of its peak it can reach.

    compute        executed FLOPs / peak          memory    bytes moved / HBM bandwidth
    interconnect   bytes sent / all links

    time >= max(compute, memory, interconnect)        MFU <= model FLOPs / (time peak)

The bound is reached when the three overlap perfectly, every product runs at the matrix units'
bfloat16 peak and every link of the chip is busy. Real steps take longer.
"""

import dataclasses
from typing import Any

from tpdiff_jax.planning.program_cost import ProgramCost
from tpdiff_jax.planning.topology import Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roofline:
    """Least times of one run of a program, seconds.

    Attributes:
        compute: of the matrix products.
        memory: of traffic with HBM; 0 where it is not known.
        interconnect: of messages between chips; 0 where it is not known.
        mfu_bound: largest share of the peak that model FLOPs can reach.
    """

    compute: float
    memory: float
    interconnect: float
    mfu_bound: float

    @property
    def seconds(self) -> float:
        """The least time of one run."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def bound_by(self) -> str:
        """What the least time is spent on."""
        parts = {name: getattr(self, name) for name in ("compute", "memory", "interconnect")}
        return max(parts, key=lambda name: parts[name])

    def facts(self) -> dict[str, Any]:
        """All figures, as the plan lists them."""
        return dataclasses.asdict(self) | {"seconds": self.seconds, "bound_by": self.bound_by}


def roofline(cost: ProgramCost, model_flops: float, target: Target) -> Roofline | None:
    """Return the least times of a program; None for a chip without published figures.

    Args:
        cost: of the program.
        model_flops: FLOPs that the method needs, without recomputation, all devices together.
        target: the machine.
    """
    chip = target.chip
    if chip is None:
        return None
    peak = chip.bf16_flops * target.num_chips
    devices_per_chip = len(target.devices) / target.num_chips
    sent = sum(collective.sent_bytes for collective in cost.collectives or ())
    times = {
        "compute": max(cost.executed_flops, model_flops) / peak,
        "memory": (cost.traffic_bytes or 0.0) * devices_per_chip / chip.memory_bandwidth,
        "interconnect": sent * devices_per_chip / chip.link_bandwidth,
    }
    return Roofline(**times, mfu_bound=model_flops / (peak * max(times.values())))
