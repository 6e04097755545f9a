"""Where parameters lie: logical axes by parameter path, optimizer and average like the parameter.

A network lists its parameters' axes beside itself, as pairs of a path pattern and axis names.
Leaves that belong to a parameter (moments, the moving average) are found by the parameter's path
at the end of their own path and lie the same way; counters and other scalars are replicated.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.tree_util import DictKey, KeyPath

from tpdiff_jax.devices import mesh as mesh_lib
from tpdiff_jax.devices.param_axes import axes_of_path
from tpdiff_jax.types import ParamAxes, Params

MAX_REPLICATED = 65536
"""Largest leaf, in elements, that may lie whole on every device without being a parameter."""


def path_ends(key_path: KeyPath) -> list[str]:
    """Return the dict keys at the end of a key path, joined by `/`: all, all but one, ..."""
    names: list[str] = []
    for key in reversed(key_path):
        if not isinstance(key, DictKey):
            break
        names.insert(0, str(key.key))
    return ["/".join(names[start:]) for start in range(len(names))]


def shardings_of(tree: Any) -> Any:
    """Return where every array of a tree lies, or will: the tree of their shardings."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def state_shardings(
    mesh: Mesh, table: ParamAxes, params: Params, state: Any, *, is_muon: bool = False
) -> Any:
    """Return the sharding of every leaf of a train state.

    Args:
        mesh: the devices.
        table: the network's parameter axes.
        params: shapes of the parameters, nested dicts.
        state: shapes of the state, any pytree that holds trees like `params`.
        is_muon: whether the optimizer orthogonalises stacks of matrices; these are then divided
            along their longer side where that costs nothing else, see `long_side_axes`.

    Returns:
        A tree like `state` of NamedSharding.

    Raises:
        ValueError: for a parameter that the table lacks or whose axis the mesh does not divide,
            and for a large leaf that belongs to no parameter.
    """
    known = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = path_ends(key_path)[0]
        known[path, leaf.shape] = _sharding(mesh, table, path, leaf.shape, is_muon)

    def place(key_path: KeyPath, leaf: Any) -> NamedSharding:
        for path in path_ends(key_path):
            if (path, leaf.shape) in known:
                return known[path, leaf.shape]
        if leaf.size > MAX_REPLICATED:
            name = jax.tree_util.keystr(key_path)
            raise ValueError(f"{name} of shape {leaf.shape} belongs to no parameter")
        return mesh_lib.sharding(mesh)

    return jax.tree_util.tree_map_with_path(place, state)


def long_side_axes(
    mesh: Mesh, axes: tuple[str | None, ...], shape: tuple[int, ...]
) -> tuple[str | None, ...]:
    """Move the width of a stack of matrices to their longer side, if no other axis divides that.

    Muon multiplies X X^T over the longer side of X: divided along it, each device adds its part
    (one message of the small square), where rows divided along the shorter side are gathered.

    Args:
        mesh: the devices.
        axes: names of the parameter's axes.
        shape: of the parameter.

    Returns:
        The axes, of which the last two may have changed places.
    """
    if len(axes) != 3 or len(shape) != 3 or axes[0] != "layers" or "width" not in axes:
        return axes
    here = axes.index("width")
    there = 3 - here
    other = axes[there]
    is_whole = other is None or mesh_lib.num_shares(mesh, other) == 1
    is_even = shape[there] % mesh_lib.num_shares(mesh, "width") == 0
    if shape[there] <= shape[here] or not (is_whole and is_even):
        return axes
    return ("layers", axes[2], axes[1])


def _sharding(
    mesh: Mesh, table: ParamAxes, path: str, shape: tuple[int, ...], is_muon: bool
) -> NamedSharding:
    axes = axes_of_path(table, path)
    if is_muon:
        axes = long_side_axes(mesh, axes, shape)
    if len(axes) > len(shape):
        raise ValueError(f"the parameter {path} of shape {shape} cannot have the axes {axes}")
    for name, size in zip(axes, shape, strict=False):
        if name is not None:
            mesh_lib.check_divisible(f"{name} of {path}", size, mesh, name)
    return mesh_lib.sharding(mesh, *axes)
