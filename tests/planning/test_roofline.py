"""Least times by hand, from a chip of round numbers."""

import dataclasses
from typing import Any

import pytest

from tpdiff_jax.planning.chips import CHIPS, Chip, chip_of_device_kind, device_memory
from tpdiff_jax.planning.collectives import CollectiveCost
from tpdiff_jax.planning.program_cost import MemoryUse, ProgramCost
from tpdiff_jax.planning.roofline import roofline
from tpdiff_jax.planning.topology import Target

CHIP = Chip(
    name="round", kinds=("round",), bf16_flops=100.0, memory_bytes=1000.0, memory_bandwidth=10.0,
    link_bandwidth=4.0, source="by hand",
)  # fmt: skip
MEMORY = MemoryUse(argument=0, output=0, alias=0, temporary=0, code=0, peak=0)


def cost(**overrides: Any) -> ProgramCost:
    fields = {"executed_flops": 800.0, "traffic_bytes": 5.0, "sent": 1.0} | overrides
    sent = [CollectiveCost("all-gather", 2, fields.pop("sent"), 0)]
    return ProgramCost(memory=MEMORY, collectives=sent, unknown_loops=[], **fields)


def target(num_devices: int = 2, num_chips: int = 2, chip: Chip | None = CHIP) -> Target:
    return Target("round:2", [object()] * num_devices, num_chips, chip)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("overrides", "bound_by", "seconds"),
    [
        ({}, "compute", 4.0),  # 800 FLOPs on two chips of 100 FLOP/s
        ({"traffic_bytes": 50.0}, "memory", 5.0),
        ({"sent": 24.0}, "interconnect", 6.0),
    ],
)
def test_the_slowest_part_bounds_the_time(overrides: dict, bound_by: str, seconds: float) -> None:
    bound = roofline(cost(**overrides), 600.0, target())
    assert bound is not None
    assert (bound.bound_by, bound.seconds) == (bound_by, seconds)
    assert bound.mfu_bound == pytest.approx(600.0 / (200.0 * seconds))


def test_two_devices_on_a_chip_share_its_memory_and_links() -> None:
    bound = roofline(cost(traffic_bytes=50.0, sent=24.0), 600.0, target(4, 2))
    assert bound is not None
    assert (bound.memory, bound.interconnect) == (10.0, 12.0)
    assert target(4, 2).memory_bytes == 500.0


class Device:
    """A device of this machine that says what it has, or does not."""

    def __init__(self, kind: str, stats: dict[str, int] | None) -> None:
        self.device_kind, self._stats = kind, stats

    def memory_stats(self) -> dict[str, int] | None:
        return self._stats


@pytest.mark.parametrize(
    ("kind", "stats", "expected"),
    [
        ("TPU v5p", {"bytes_limit": 90, "bytes_in_use": 1}, 90.0),
        ("TPU v5p", {"bytes_in_use": 1}, 95 * 2.0**30),
        ("TPU v5p", None, 95 * 2.0**30),
        ("abacus", {"bytes_limit": 7}, 7.0),
        ("abacus", None, None),
    ],
)
def test_a_device_that_is_here_says_itself_what_a_program_may_use(
    kind: str, stats: dict[str, int] | None, expected: float | None
) -> None:
    device = Device(kind, stats)
    assert device_memory(device) == expected  # type: ignore[arg-type]
    here = Target("local", [device], 1, CHIP)  # type: ignore[list-item]
    assert here.memory_bytes == expected


def test_a_chip_without_published_figures_has_no_roofline() -> None:
    assert roofline(cost(), 600.0, target(chip=None)) is None


def test_the_bound_never_exceeds_the_peak() -> None:
    bound = roofline(cost(executed_flops=10.0, traffic_bytes=0.0, sent=0.0), 600.0, target())
    assert bound is not None and bound.mfu_bound == 1.0


def test_every_chip_names_its_source_and_is_found_by_its_kind() -> None:
    for chip in CHIPS:
        assert chip.source.startswith("https://")
        assert all(chip_of_device_kind(kind) == chip for kind in chip.kinds)
        figures = [v for v in dataclasses.asdict(chip).values() if isinstance(v, float)]
        assert len(figures) == 4 and min(figures) > 0
    assert chip_of_device_kind("abacus") is None
