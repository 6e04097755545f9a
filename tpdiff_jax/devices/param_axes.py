"""Logical axes of a network's parameters, found by their paths in the network's table."""

import re

from tpdiff_jax.types import Axes, ParamAxes


def find_axes(table: ParamAxes, path: str) -> Axes | None:
    """Return the logical axes of the parameter at `path`, such as `stem/patch/kernel`, if any."""
    for pattern, axes in table:
        if re.fullmatch(pattern, path):
            return axes
    return None


def axes_of_path(table: ParamAxes, path: str) -> Axes:
    """Return the logical axes of the parameter at `path`.

    Raises:
        ValueError: when no pattern of the table matches the whole path.
    """
    axes = find_axes(table, path)
    if axes is None:
        raise ValueError(f"no pattern of the network's parameter axes matches {path}")
    return axes
