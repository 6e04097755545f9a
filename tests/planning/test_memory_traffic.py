"""Bytes to and from main memory: slices count as slices, fast memory not at all."""

from tests.planning.hlo_examples import SCAN
from tpdiff_jax.planning.hlo_loops import executed_instructions
from tpdiff_jax.planning.hlo_text import parse_module
from tpdiff_jax.planning.memory_traffic import memory_traffic


def traffic(text: str) -> float:
    module = parse_module(text)
    return memory_traffic(module, executed_instructions(module).steps)


def test_a_loop_over_layers_reads_each_layer_once() -> None:
    counters = 3 * (4 + 4 + 4) + 3 * 4 + 4 + 4  # i + 1, the index of the slice, the first copy
    a_trip = (
        2 * 512  # weights: one layer in, one out
        + 512  # near: read here, written to fast memory
        + 512 + 2 * 512  # the permuted array: read, and its two buffers
        + 512 + 64  # shares
    )  # fmt: skip
    assert traffic(SCAN) == 3 * a_trip + counters + 64 + 512


def test_an_update_in_place_moves_the_update_alone() -> None:
    text = """\
ENTRY %main (x: f32[1024,8], u: f32[1,8]) -> f32[1024,8] {
  %x = f32[1024,8]{1,0} parameter(0)
  %u = f32[1,8]{1,0} parameter(1)
  %at = s32[]{:S(2)} constant(5)
  ROOT %new = f32[1024,8]{1,0} dynamic-update-slice(%x, %u, %at, %at)
}
"""
    assert traffic(text) == 2 * 32


def test_a_started_slice_moves_the_slice_alone() -> None:
    text = """\
ENTRY %main (x: f32[1024,8]) -> f32[256,8] {
  %x = f32[1024,8]{1,0} parameter(0)
  %s = ((f32[1024,8]{1,0}), f32[256,8]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:256]}
  %near = f32[256,8]{1,0:S(1)} slice-done(%s)
  ROOT %y = f32[256,8]{1,0} negate(%near)
}
"""
    assert traffic(text) == 256 * 8 * 4 + 256 * 8 * 4  # read by the slice, written by the result
