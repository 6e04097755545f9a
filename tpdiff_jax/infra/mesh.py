"""The device mesh and the rule table that says how arrays lie on it.

One table, `RULES`, maps logical axes to mesh axes; nothing else in the package names a mesh axis.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data",)
RULES: Mapping[str, str | None] = {"batch": "data"}


def make_mesh(data: int = -1) -> Mesh:
    """Return the mesh over all devices of all processes.

    Args:
        data: devices along the batch; -1 takes all.

    Raises:
        ValueError: naming `mesh.data` when the devices do not come out even.
    """
    num_devices = jax.device_count()
    size = num_devices if data == -1 else data
    if size != num_devices:
        raise ValueError(f"mesh.data={data} must be -1 or the number of devices, {num_devices}")
    return jax.make_mesh((size,), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def sharding(mesh: Mesh, *logical_axes: str | None) -> NamedSharding:
    """Return the sharding of an array whose leading axes carry these names; none: replicated."""
    axes = (RULES[name] if name is not None else None for name in logical_axes)
    return NamedSharding(mesh, PartitionSpec(*axes))


def check_divisible(field: str, value: int, mesh: Mesh) -> None:
    """Raise ValueError when a batch of `value` does not spread evenly over the mesh."""
    size = mesh.shape["data"]
    if value % size:
        raise ValueError(f"{field}={value} must be a multiple of mesh.data={size}")


def put_batch(mesh: Mesh, batch: Any) -> Any:
    """Make global arrays, sharded over the batch, out of this process's share of each."""
    target = sharding(mesh, "batch")
    return jax.tree.map(
        lambda a: jax.make_array_from_process_local_data(target, np.asarray(a)), batch
    )
