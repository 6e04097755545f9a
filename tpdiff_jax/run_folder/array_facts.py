"""Types and shapes of a state, as a manifest holds them."""

from typing import Any

import jax


def describe_arrays(state: Any) -> dict[str, str]:
    """Return path -> type and global shape of every array of a state, as `float32[2, 3]`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }
