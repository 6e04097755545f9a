"""Logical axes of a network's parameters, found by their path in the network's table."""

import re

from tpdiff_jax.types import ParamAxes


def axes_of_path(table: ParamAxes, path: str) -> tuple[str | None, ...]:
    """Return the logical axes of the parameter at `path`, such as `stem/patch/kernel`.

    Raises:
        ValueError: when no pattern of the table matches the whole path.
    """
    for pattern, axes in table:
        if re.fullmatch(pattern, path):
            return axes
    raise ValueError(f"no pattern of the network's parameter axes matches {path}")
