"""The mesh: sizes come out even or are refused by name, and rows go where the mesh says."""

import jax
import numpy as np
import pytest

from tpdiff_jax.devices import mesh as mesh_lib
from tpdiff_jax.devices.mesh import MESH_AXES, RULES, MeshSpec, make_mesh


def test_minus_one_takes_the_devices_that_the_other_axes_leave():
    spec = MeshSpec(data=-1, fsdp=2, tensor=2)
    assert dict(zip(MESH_AXES, spec.shape(8), strict=True)) == {
        "data": 2, "fsdp": 2, "context": 1, "tensor": 2,
    }  # fmt: skip
    assert MeshSpec().shape(8)[0] == 8


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"fsdp": 0}, r"mesh\.fsdp=0"),
        ({"tensor": -2}, r"mesh\.tensor=-2"),
        ({"fsdp": -1}, r"mesh\.data and mesh\.fsdp are -1"),
        ({"data": 3}, r"mesh\.data=3 .* 8"),
        ({"data": 8, "context": 2}, r"mesh\.data=8, mesh\.context=2 .* 8"),
        ({"fsdp": 16}, r"mesh\.fsdp=16 .* 8"),
        ({"tensor": 3}, r"mesh\.tensor=3 .* 8"),
        ({"data": 1}, r"^mesh\.data=1, mesh\.fsdp=1, mesh\.context=1, mesh\.tensor=1 must .* 8$"),
    ],
)
def test_sizes_that_do_not_come_out_even_are_refused_by_name(sizes, named):
    with pytest.raises(ValueError, match=named):
        MeshSpec(**sizes).shape(8)


def test_every_rule_names_axes_of_the_mesh_and_every_axis_has_a_use():
    used = {axis for axes in RULES.values() for axis in axes}
    assert used == set(MESH_AXES)


def test_a_batch_that_the_mesh_does_not_divide_is_refused_with_its_field():
    devices = jax.sharding.AbstractMesh((1, 2, 1, 2), MESH_AXES)
    mesh_lib.check_divisible("train.batch_size", 6, devices)
    with pytest.raises(ValueError, match=r"train\.batch_size=7 .* mesh\.fsdp=2"):
        mesh_lib.check_divisible("train.batch_size", 7, devices)
    with pytest.raises(ValueError, match=r"model\.num_heads=3 .* mesh\.tensor=2"):
        mesh_lib.check_divisible("model.num_heads", 3, devices, "heads")


def test_a_size_is_rounded_up_to_one_that_the_mesh_divides():
    devices = jax.sharding.AbstractMesh((3, 2, 1, 2), MESH_AXES)
    assert [mesh_lib.rounded_up(size, devices) for size in (1, 6, 7, 12)] == [6, 6, 12, 12]
    assert mesh_lib.rounded_up(3, devices, "heads") == 4


def test_one_process_holds_every_row_in_order():
    mesh = make_mesh(MeshSpec(), jax.devices()[:1])
    np.testing.assert_array_equal(mesh_lib.local_rows(mesh, 6), np.arange(6))
    batch = {"video": np.arange(12.0).reshape(6, 2)}
    np.testing.assert_array_equal(mesh_lib.put_batch(mesh, batch, 6)["video"], batch["video"])
