"""Where parameters lie: logical axes by parameter path, optimizer and average like the parameter.

A network lists its parameters' axes beside itself, as pairs of a path pattern and axis names.
Leaves that belong to a parameter (moments, the moving average) are found by the parameter's path
at the end of their own path and lie the same way; counters and other scalars are replicated.
"""

import re
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.tree_util import DictKey, KeyPath

from tpdiff_jax.devices import mesh as mesh_lib
from tpdiff_jax.types import ParamAxes, Params

MAX_REPLICATED = 65536
"""Largest leaf, in elements, that may lie whole on every device without being a parameter."""


def axes_of_path(table: ParamAxes, path: str) -> tuple[str | None, ...]:
    """Return the logical axes of the parameter at `path`, such as `stem/patch/kernel`.

    Raises:
        ValueError: when no pattern of the table matches the whole path.
    """
    for pattern, axes in table:
        if re.fullmatch(pattern, path):
            return axes
    raise ValueError(f"no pattern of the network's parameter axes matches {path}")


def path_ends(key_path: KeyPath) -> list[str]:
    """Return the dict keys at the end of a key path, joined by `/`: all, all but one, ..."""
    names: list[str] = []
    for key in reversed(key_path):
        if not isinstance(key, DictKey):
            break
        names.insert(0, str(key.key))
    return ["/".join(names[start:]) for start in range(len(names))]


def state_shardings(mesh: Mesh, table: ParamAxes, params: Params, state: Any) -> Any:
    """Return the sharding of every leaf of a train state.

    Args:
        mesh: the devices.
        table: the network's parameter axes.
        params: shapes of the parameters, nested dicts.
        state: shapes of the state, any pytree that holds trees like `params`.

    Returns:
        A tree like `state` of NamedSharding.

    Raises:
        ValueError: for a parameter that the table lacks or whose axis the mesh does not divide,
            and for a large leaf that belongs to no parameter.
    """
    known = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = path_ends(key_path)[0]
        known[path, leaf.shape] = _sharding(mesh, table, path, leaf.shape)

    def place(key_path: KeyPath, leaf: Any) -> NamedSharding:
        for path in path_ends(key_path):
            if (path, leaf.shape) in known:
                return known[path, leaf.shape]
        if leaf.size > MAX_REPLICATED:
            name = jax.tree_util.keystr(key_path)
            raise ValueError(f"{name} of shape {leaf.shape} belongs to no parameter")
        return mesh_lib.sharding(mesh)

    return jax.tree_util.tree_map_with_path(place, state)


def _sharding(mesh: Mesh, table: ParamAxes, path: str, shape: tuple[int, ...]) -> NamedSharding:
    axes = axes_of_path(table, path)
    if len(axes) > len(shape):
        raise ValueError(f"the parameter {path} of shape {shape} cannot have the axes {axes}")
    for name, size in zip(axes, shape, strict=False):
        if name is not None:
            mesh_lib.check_divisible(f"{name} of {path}", size, mesh, name)
    return mesh_lib.sharding(mesh, *axes)
