"""A compiled program's text is read as XLA prints it, and loops count as their trips."""

import jax
import jax.numpy as jnp
import pytest

from tests.planning.hlo_examples import SCAN
from tpdiff_jax.planning.hlo_loops import executed_instructions
from tpdiff_jax.planning.hlo_text import ArrayShape, parse_instruction, parse_module

pytestmark = pytest.mark.usefixtures("compiled_anew")


def times_by_name(text: str) -> dict[str, int]:
    execution = executed_instructions(parse_module(text))
    return {step.instruction.name: step.times for step in execution.steps}


def test_tuples_layouts_and_memory_spaces_are_read() -> None:
    line = (
        "  ROOT %f.3 = (f32[8,128]{1,0:T(8,128)S(1)}, /*index=1*/bf16[2,1]{1,0:T(2,128)(2,1)}) "
        'fusion(%a.1, %b), kind=kLoop, calls=%c.2, backend_config={"x":"(y)"}'
    )
    instruction = parse_instruction(line)
    assert instruction is not None
    assert (instruction.name, instruction.opcode, instruction.is_root) == ("f.3", "fusion", True)
    assert instruction.shapes == (ArrayShape("f32", (8, 128), 1), ArrayShape("bf16", (2, 1), 0))
    assert instruction.operands == ("a.1", "b")
    assert instruction.called("calls") == "c.2"


@pytest.mark.parametrize(
    ("dtype", "num_bytes"),
    [("f32", 24), ("bf16", 12), ("pred", 6), ("s4", 3), ("f8e4m3fn", 6), ("c64", 48), ("token", 0)],
)
def test_element_types_have_their_size(dtype: str, num_bytes: int) -> None:
    assert ArrayShape(dtype, (2, 3), 0).num_bytes == num_bytes


def test_a_kernels_attributes_on_lines_of_their_own_do_not_end_the_computation() -> None:
    text = SCAN.replace(
        "  %near = f32[16,8]{1,0:T(8,128)S(1)} copy(%weights)",
        "  %near = f32[16,8]{1,0:T(8,128)S(1)} custom-call(%weights), frontend_attributes={\n"
        'kernel_metadata={"x": 1\n}}, metadata={}',
    )
    assert times_by_name(text)["shares"] == times_by_name(SCAN)["shares"] == 3


def test_a_text_without_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="entry"):
        parse_module("HloModule nothing")


def test_the_body_of_a_counted_loop_runs_as_often_as_its_condition_says() -> None:
    times = times_by_name(SCAN)
    assert times["gathered"] == 1
    assert times["weights"] == times["layer"] == times["all"] == 3


def test_a_stated_trip_count_is_taken() -> None:
    stated = 'condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}'
    assert times_by_name(SCAN.replace("condition=%cond, body=%body", stated))["weights"] == 5


def test_a_loop_of_unknown_length_counts_once_and_is_named() -> None:
    text = SCAN.replace("%counter = s32[]{:T(128)} copy(%first)", "%counter = s32[] parameter(2)")
    execution = executed_instructions(parse_module(text))
    assert execution.unknown_loops == ["loop"]
    assert all(step.times == 1 for step in execution.steps)


def test_the_scans_of_a_real_program_are_counted() -> None:
    def nested(x: jax.Array) -> jax.Array:
        def outer(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jax.lax.scan(lambda y, _: (jnp.sin(y @ y), None), x, None, length=5)[0], None

        return jax.lax.scan(outer, x, None, length=7)[0]

    text = jax.jit(nested).lower(jnp.zeros((64, 64))).compile().as_text()
    execution = executed_instructions(parse_module(text))
    products = [s.times for s in execution.steps if s.instruction.opcode in ("dot", "custom-call")]
    assert products == [35]
    assert execution.unknown_loops == []
