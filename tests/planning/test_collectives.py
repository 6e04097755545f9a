"""Messages are added up by kind, with the bytes that a ring sends and what hides them."""

import pytest

from tests.planning.hlo_examples import SCAN
from tpdiff_jax.planning.collectives import CollectiveCost, collective_costs, group_size
from tpdiff_jax.planning.hlo_loops import executed_instructions
from tpdiff_jax.planning.hlo_text import parse_instruction, parse_module


def costs(text: str) -> dict[str, CollectiveCost]:
    steps = executed_instructions(parse_module(text)).steps
    return {cost.kind: cost for cost in collective_costs(steps, num_devices=8)}


def test_kinds_counts_and_bytes_of_a_program_with_a_loop() -> None:
    assert costs(SCAN) == {
        # 64 bytes of each of the seven others pass every device.
        "all-gather": CollectiveCost("all-gather", 1, 7 * 64, 0),
        # An all-reduce in a fusion that keeps a slice is a reduce-scatter: 7/8 of 512 bytes.
        "reduce-scatter": CollectiveCost("reduce-scatter", 3, 3 * 448, 0),
        "collective-permute": CollectiveCost("collective-permute", 3, 3 * 512, 3),
    }


def test_an_all_reduce_whose_whole_result_is_used_sends_twice_as_much() -> None:
    text = SCAN.replace(
        "dynamic-slice(%all, %at, %at), dynamic_slice_sizes={2,8}", "slice(%all), slice={[0:2]}"
    )
    assert costs(text)["all-reduce"].sent_bytes == 3 * 2 * 448


def test_a_message_with_nothing_between_start_and_end_is_not_overlapped() -> None:
    lines = SCAN.splitlines()
    work = next(i for i, line in enumerate(lines) if "%work = " in line)
    del lines[work]
    assert costs("\n".join(lines))["collective-permute"].num_overlapped == 0


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups=[4,16]<=[64]", 16),
        ("replica_groups=[16,4]<=[4,16]T(1,0)", 4),
        ("replica_groups={{0,1,2},{3,4,5}}", 3),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=16] {'axis_0'}", 4),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=16] {'axis_0','axis_1'}", 64),
        ("replica_groups=mesh['a'=1,'b'=16,'c'=4], device_ids=([4,16]T(1,0)) {'b'}", 16),
        ("replica_groups={}", 64),
    ],
)
def test_groups_are_read_in_every_way_they_are_printed(groups: str, size: int) -> None:
    instruction = parse_instruction(f"  %r = f32[4]{{0}} all-reduce(%x), {groups}, to_apply=%s")
    assert instruction is not None
    assert group_size(instruction, num_devices=64) == size
