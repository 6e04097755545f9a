"""A process that compiles thousands of programs stays below the number of maps it may have."""

import jax
import jax.numpy as jnp
import pytest

from tests import memory_maps

NUM_PROGRAMS = 20

pytestmark = pytest.mark.skipif(
    not (memory_maps.MAPS.exists() and memory_maps.MAX_MAPS.exists()), reason="Linux counts maps"
)


def compile_programs() -> list[jax.stages.Wrapped]:
    """Programs that JAX keeps, each of its own code."""
    programs = [jax.jit(lambda x, i=i: jnp.sin(x) * i) for i in range(NUM_PROGRAMS)]
    for i, program in enumerate(programs):
        assert program(jnp.float32(0.5)) == pytest.approx(i * 0.4794255)
    return programs


def test_dropped_programs_give_their_maps_back_and_are_compiled_again() -> None:
    compile_programs()  # the threads that compile have maps of their own
    memory_maps.drop_programs(0)
    before = memory_maps.count_maps()
    programs = compile_programs()
    after = memory_maps.count_maps()
    assert after >= before + 2 * NUM_PROGRAMS, "a program needs code and data"
    assert memory_maps.drop_programs(after - 1)
    assert memory_maps.count_maps() <= before + (after - before) // 4
    assert programs[3](jnp.float32(0.5)) == pytest.approx(3 * 0.4794255)


def test_below_the_limit_programs_stay() -> None:
    traced = []

    @jax.jit
    def program(x: jax.Array) -> jax.Array:
        traced.append(x.shape)
        return x + 1

    program(jnp.float32(1))
    assert not memory_maps.drop_programs(memory_maps.count_maps() + 1000)
    program(jnp.float32(1))
    assert len(traced) == 1


def test_the_limit_is_a_share_of_what_the_system_allows() -> None:
    allowed = int(memory_maps.MAX_MAPS.read_text())
    assert 0.1 * allowed < memory_maps.map_limit() < 0.6 * allowed
