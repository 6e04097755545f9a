"""The TPU compiler works without a TPU, and what it says is what it should say."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tpdiff_jax.planning.program_cost import DoesNotFit, needed_bytes, program_cost
from tpdiff_jax.planning.topology import open_target

pytestmark = pytest.mark.usefixtures("compiled_anew")

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"
)


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "chip", "num_chips", "num_devices", "gibibytes"),
    [
        ("v5e:2x4", "v5e", 8, 8, 16.0),
        ("v5p:4x4x4", "v5p", 64, 64, 95.0),
        ("v6e:4x4", "v6e", 16, 16, 32.0),
        ("tpu7x:2x2x2", "tpu7x", 8, 16, 96.0),  # two devices on a chip share its memory
    ],
)
def test_slices_have_their_chips(
    name: str, chip: str, num_chips: int, num_devices: int, gibibytes: float
) -> None:
    target = open_target(name)
    assert target.chip is not None and target.chip.name == chip
    assert (target.num_chips, len(target.devices)) == (num_chips, num_devices)
    assert target.memory_bytes == gibibytes * 2**30


@pytest.mark.parametrize("name", ["v5p", "v9z:2x2", "v5e:2", "cpu:0", "cpu:x", "gpu:8", ""])
def test_an_unknown_name_is_refused_with_examples(name: str) -> None:
    with pytest.raises(ValueError, match="--topology=.*must be local, cpu:N"):
        open_target(name)


@needs_libtpu
def test_a_shape_that_no_slice_has_is_refused_with_the_compilers_reason() -> None:
    with pytest.raises(ValueError, match="--topology=v5e:2x3 is no slice.*not divisible"):
        open_target("v5e:2x3")


def test_without_libtpu_the_error_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "jax\[tpu\]=='):
        open_target("v5e:2x4")


def test_host_devices_cannot_change_once_jax_has_started() -> None:
    present = jax.device_count()
    with pytest.raises(ValueError, match="has already started"):
        open_target(f"cpu:{present + 1}")
    assert len(open_target(f"cpu:{present}").devices) == present


@needs_libtpu
def test_a_program_for_eight_chips_is_compiled_and_read() -> None:
    target = open_target("v5e:2x4")
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,), devices=target.devices)
    shared = NamedSharding(mesh, PartitionSpec("fsdp"))
    width, rows = 4096, 1024
    x, w = (jax.ShapeDtypeStruct((n, width), jnp.bfloat16, sharding=shared) for n in (rows, width))
    traced = jax.jit(lambda x, w: x @ w, out_shardings=shared).trace(x, w)
    cost = program_cost(traced, target.devices)
    assert cost.executed_flops == 2.0 * rows * width**2
    share = 2 * width * (rows + width) / 8
    assert cost.memory.argument == share
    assert cost.memory.peak >= share
    assert cost.unknown_loops == []
    # Every chip needs the whole matrix or every row: at the least, the smaller of the two travels.
    assert cost.collectives is not None and cost.collectives
    sent = sum(collective.sent_bytes for collective in cost.collectives)
    assert sent >= 0.8 * 2 * width * rows * 7 / 8
    assert cost.traffic_bytes is not None and cost.traffic_bytes >= 0.5 * share


@needs_libtpu
def test_a_program_that_needs_too_much_memory_is_refused_with_its_size() -> None:
    target = open_target("v5e:2x4")
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,), devices=target.devices)
    whole = NamedSharding(mesh, PartitionSpec())
    gibibyte = jax.ShapeDtypeStruct((20, 2**28), jnp.float32, sharding=whole)  # 20 GiB of 16
    with pytest.raises(DoesNotFit) as refused:
        program_cost(jax.jit(lambda x: x + 1.0).trace(gibibyte), target.devices)
    assert refused.value.needed is not None and refused.value.needed >= 20 * 2**30


def test_the_size_is_read_from_the_compilers_messages() -> None:
    message = "Ran out of memory on HBM, the total ... (240.88G) exceeds available HBM (95.74G)."
    assert needed_bytes(message) == pytest.approx(240.88 * 2**30)
    assert needed_bytes("out of memory") is None
