"""The device mesh and the rule table that says how arrays lie on it.

    data      copies of the parameters, each with its share of the batch
    fsdp      shares of the batch that also share out the parameters, gathered layer by layer
    context   shares of the tokens of every clip; attention gathers keys and values
    tensor    shares of the heads and hidden units, each group with its part of the matrices

One table, `RULES`, maps logical axes to mesh axes; nothing else in the package names a mesh axis.
Neighbouring devices differ in the last axis first, so the axis that talks most stands last.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from tpdiff_jax.devices.param_axes import find_axes
from tpdiff_jax.types import Array, Axes, ParamAxes, Params

MESH_AXES = ("data", "fsdp", "context", "tensor")
RULES: Mapping[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "tokens": ("context",),  # patches of a frame: as many in every stage of the pyramid
    "heads": ("tensor",),
    "hidden": ("tensor",),
    "width": ("fsdp",),  # of parameters; activations keep their whole width
    "layers": (),  # scanned over, one after another
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSpec:
    """Fields of the config group `mesh`: devices along each axis, -1 for all that are left.

    Raises:
        ValueError: for a size that is neither positive nor -1, or more than one -1.
    """

    data: int = -1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for name in MESH_AXES:
            size = getattr(self, name)
            if size < 1 and size != -1:
                raise ValueError(f"mesh.{name}={size} must be positive, or -1 for the rest")
        free = [f"mesh.{name}" for name in MESH_AXES if getattr(self, name) == -1]
        if len(free) > 1:
            raise ValueError(f"{' and '.join(free)} are -1; only one of them may be")

    def shape(self, num_devices: int) -> tuple[int, ...]:
        """Return the size of every axis of `MESH_AXES`.

        Raises:
            ValueError: naming the axes when the devices do not come out even.
        """
        sizes = {name: getattr(self, name) for name in MESH_AXES}
        given = math.prod(size for size in sizes.values() if size != -1)
        shape = tuple(num_devices // given if size == -1 else size for size in sizes.values())
        if math.prod(shape) != num_devices:
            told = {name: size for name, size in sizes.items() if size != 1} or sizes
            text = ", ".join(f"mesh.{name}={size}" for name, size in told.items())
            raise ValueError(f"{text} must come out even on the number of devices, {num_devices}")
        return shape


def make_mesh(spec: MeshSpec, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return the mesh over all devices of all processes, or over those given.

    Raises:
        ValueError: naming the axes of `mesh` when the devices do not come out even.
    """
    shape = spec.shape(len(devices) if devices is not None else jax.device_count())
    types = (AxisType.Auto,) * len(MESH_AXES)  # the compiler places what is not constrained
    return jax.make_mesh(shape, MESH_AXES, axis_types=types, devices=devices)


def partition(*logical_axes: str | None) -> PartitionSpec:
    """Return how an array lies whose leading axes carry these names; None: not divided."""
    return PartitionSpec(*(RULES[name] or None if name else None for name in logical_axes))


def sharding(mesh: Mesh, *logical_axes: str | None) -> NamedSharding:
    """Return the sharding of an array whose leading axes carry these names; none: replicated."""
    return NamedSharding(mesh, partition(*logical_axes))


def num_shares(mesh: Mesh | AbstractMesh, logical_axis: str) -> int:
    """Return into how many parts an axis of this name is divided."""
    return math.prod(mesh.shape[name] for name in RULES[logical_axis])


def check_divisible(
    field: str, value: int, mesh: Mesh | AbstractMesh, logical_axis: str = "batch"
) -> None:
    """Refuse an axis that does not spread evenly over the mesh.

    Args:
        field: what it is, for the message.
        value: its length.
        mesh: the devices.
        logical_axis: a key of `RULES`.

    Raises:
        ValueError: naming the field, its value and the sizes of the mesh.
    """
    if value % num_shares(mesh, logical_axis):
        sizes = " * ".join(f"mesh.{name}={mesh.shape[name]}" for name in RULES[logical_axis])
        raise ValueError(f"{field}={value} must be a multiple of {sizes}")


def rounded_up(size: int, mesh: Mesh, logical_axis: str = "batch") -> int:
    """Return the smallest size, from this one on, that spreads evenly over the mesh.

    Args:
        size: of an axis.
        mesh: the devices.
        logical_axis: a key of `RULES`.
    """
    shares = num_shares(mesh, logical_axis)
    return -(-size // shares) * shares


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Return the rows of a global batch that lie on this process's devices, sorted."""
    index_map = sharding(mesh, "batch").addressable_devices_indices_map((batch_size,))
    rows = [np.arange(batch_size)[index] for index in index_map.values() if index is not None]
    return np.unique(np.concatenate(rows))


@dataclasses.dataclass(frozen=True)
class MeshLayout:
    """`tpdiff_jax.types.Layout` of a mesh."""

    mesh: Mesh

    @property
    def platform(self) -> str:
        """Kind of device: cpu, gpu or tpu."""
        return self.mesh.devices.flat[0].platform

    def constrain(self, x: Array, *axes: str | None) -> Array:
        """Return x, divided along the axes named."""
        if self.mesh.size == 1:
            return x
        return jax.lax.with_sharding_constraint(x, sharding(self.mesh, *axes))

    def over_shards(
        self,
        function: Callable[..., tuple[Array, ...]],
        in_axes: Sequence[Axes],
        out_axes: Sequence[Axes],
    ) -> Callable[..., tuple[Array, ...]]:
        """Return a function that runs on each device's own part of the arguments.

        Args:
            function: takes one array for each entry of `in_axes`, returns one for each of
                `out_axes`.
            in_axes: names of each argument's axes.
            out_axes: names of each result's axes; along others all devices compute the same.

        Returns:
            A function of whole arrays; `function` itself on one device.
        """
        if self.mesh.size == 1:
            return function
        in_specs, out_specs = (
            tuple(partition(*axes) for axes in part) for part in (in_axes, out_axes)
        )
        # Kernels cannot say how their results vary over the mesh, so that is not checked.
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )

    def gather(self, x: Array, name: str, dim: int) -> Array:
        """Inside `over_shards`: collect a dimension from all parts of an axis.

        Args:
            x: a device's own part.
            name: logical axis that `dim` is divided along.
            dim: dimension of x.

        Returns:
            The array with `dim` in full.
        """
        if num_shares(self.mesh, name) == 1:
            return x
        return jax.lax.all_gather(x, RULES[name], axis=dim, tiled=True)

    def gather_layer(self, table: ParamAxes, path: str) -> Callable[[Params], Params] | None:
        """Return what makes one layer's parameters whole along their width; None: they are.

        Left to itself, XLA gathers small weights too. With many tokens a device it multiplies part
        by part instead, and passes the sum of the parts through memory each time.

        Args:
            table: axes of the network's parameters.
            path: of the stack that the layer is one of.

        Source: Rajbhandari et al., ZeRO, arXiv 1910.02054, section 5.3.
        """
        if num_shares(self.mesh, "width") == 1:
            return None

        def whole(key_path: jax.tree_util.KeyPath, leaf: Array) -> Array:
            name = jax.tree_util.keystr(key_path, simple=True, separator="/")
            axes = find_axes(table, f"{path}/{name}")
            if axes is None or "width" not in axes:  # low-rank factors are small
                return leaf
            # A layer has no axis of layers.
            kept = [None if axis == "width" else axis for axis in axes[len(axes) - leaf.ndim :]]
            return _one_way(lambda x: self.constrain(x, *kept), leaf)

        return lambda params: jax.tree_util.tree_map_with_path(whole, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _one_way(constrain: Callable[[Array], Array], x: Array) -> Array:
    """Return x, divided as `constrain` says; its gradient is divided as the compiler likes.

    By itself the gradient would be divided in the same way, that is gathered.
    """
    return constrain(x)


_one_way.defvjp(
    lambda constrain, x: (constrain(x), None),
    lambda constrain, _, gradient: (gradient,),
)


def put_batch(mesh: Mesh, batch: Any, batch_size: int) -> Any:
    """Make global arrays, sharded over the batch, out of this process's rows of each.

    Args:
        mesh: the devices.
        batch: a pytree of arrays with the rows `local_rows`.
        batch_size: rows of the global batch.
    """
    target = sharding(mesh, "batch")

    def put(local: Any) -> Array:
        local = np.asarray(local)
        shape = (batch_size, *local.shape[1:])
        return jax.make_array_from_process_local_data(target, local, shape)

    return jax.tree.map(put, batch)
