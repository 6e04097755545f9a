"""The largest batch is found in few compilations, whatever the memory's line looks like."""

import pytest

from tpdiff_jax.planning.batch_search import LargestBatch, largest_batch
from tpdiff_jax.planning.program_cost import DoesNotFit


class Compiler:
    """A compiler whose memory is a + b n + c n^2, refusing above 1000 bytes."""

    def __init__(self, a: float, b: float, c: float = 0.0, says_needed: bool = True) -> None:
        self.coefficients, self.says_needed = (a, b, c), says_needed
        self.compiled: list[int] = []

    def needed(self, n: int) -> float:
        a, b, c = self.coefficients
        return a + b * n + c * n**2

    def peak_of(self, n: int) -> float:
        self.compiled.append(n)
        if self.needed(n) > 1000.0:
            raise DoesNotFit("too big", self.needed(n) if self.says_needed else None)
        return self.needed(n)

    def search(self, start: int, unit: int = 1, **overrides: int) -> LargestBatch:
        needed = self.needed(start)
        fits = start if needed <= 1000.0 else 0
        return largest_batch(
            self.peak_of,
            unit=unit,
            memory_bytes=1000.0,
            known={start: needed},
            fits=fits,
            refused=None if fits else start,
            **overrides,
        )


@pytest.mark.parametrize(("start", "unit"), [(1, 1), (32, 1), (90, 1), (8, 8), (800, 8)])
def test_a_line_is_followed_to_its_end(start: int, unit: int) -> None:
    compiler = Compiler(a=100.0, b=9.0)  # 100 fits, 101 does not
    found = compiler.search(start, unit)
    assert found == LargestBatch(100 - 100 % unit, 100 - 100 % unit + unit)
    assert len(compiler.compiled) <= 3


def test_what_was_compiled_is_what_is_returned_when_the_line_bends() -> None:
    compiler = Compiler(a=50.0, b=1.0, c=0.05)
    found = compiler.search(4, max_compilations=8)
    assert compiler.needed(found.batch_size) <= 1000.0 < compiler.needed(found.batch_size + 1)
    assert found.batch_size in compiler.compiled


def test_a_compiler_that_does_not_say_how_much_is_needed_is_bisected() -> None:
    compiler = Compiler(a=400.0, b=100.0, says_needed=False)  # 6 fits
    found = largest_batch(
        compiler.peak_of,
        unit=1,
        memory_bytes=1000.0,
        known={},
        fits=0,
        refused=64,
        max_compilations=8,
    )
    assert found == LargestBatch(6, 7)


def test_nothing_fits() -> None:
    compiler = Compiler(a=2000.0, b=1.0)
    assert compiler.search(16).batch_size == 0
    assert compiler.compiled[-1] == 1, "the smallest batch decides"


def test_the_search_ends_after_the_compilations_it_is_given() -> None:
    compiler = Compiler(a=0.0, b=0.001)
    assert compiler.search(1, max_compilations=2).refused is None
    assert len(compiler.compiled) == 2
