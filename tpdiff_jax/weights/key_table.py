"""Key tables: where each tensor of a published file stands among the parameters.

A row says: this tensor, so transformed, is this share of this parameter's last axis. "{layer}" in
a tensor's name counts along the leading axis of a stacked parameter. Every network brings its own
rows; import, export and the checks follow from the rows and from the parameters' shapes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from tpdiff_jax.types import Params

LAYER = "{layer}"


class Transform(NamedTuple):
    """A change of layout and its inverse, on numpy arrays of any type."""

    to_param: Callable[[np.ndarray], np.ndarray]
    to_tensor: Callable[[np.ndarray], np.ndarray]

    def then(self, other: "Transform") -> "Transform":
        """First this one towards the parameter, then `other`."""
        return Transform(
            lambda x: other.to_param(self.to_param(x)), lambda x: self.to_tensor(other.to_tensor(x))
        )


UNCHANGED = Transform(lambda x: x, lambda x: x)
TRANSPOSED = Transform(np.transpose, np.transpose)  # PyTorch keeps [out, in], flax [in, out]
HALVES_SWAPPED = Transform(
    lambda x: np.roll(x, x.shape[-1] // 2, axis=-1), lambda x: np.roll(x, x.shape[-1] // 2, axis=-1)
)


class KeyRow(NamedTuple):
    """One row of a key table.

    Attributes:
        tensor: name in the file; may hold "{layer}".
        param: path among the parameters, "/" between keys.
        transform: from the tensor's layout to the parameter's.
        share: (i, n): the i-th of n equal parts of the parameter's last axis.
    """

    tensor: str
    param: str
    transform: Transform = UNCHANGED
    share: tuple[int, int] = (0, 1)


def linear_rows(
    tensor: str, param: str, share: tuple[int, int] = (0, 1), outputs: Transform = UNCHANGED
) -> list[KeyRow]:
    """Rows of a linear layer.

    Args:
        tensor: its name in the file.
        param: its path among the parameters.
        share: (i, n): the i-th of n equal parts of the parameter's last axis.
        outputs: rearranges its outputs, the last axis here.

    Returns:
        Rows of kernel and bias.
    """
    return [
        KeyRow(f"{tensor}.weight", f"{param}/kernel", TRANSPOSED.then(outputs), share),
        KeyRow(f"{tensor}.bias", f"{param}/bias", outputs, share),
    ]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one tensor goes.

    Attributes:
        param: path of the parameter.
        index: the tensor's part of the parameter.
        transform: from the tensor's layout to the parameter's.
        shape: what the file must hold.
    """

    param: str
    index: tuple[Any, ...]
    transform: Transform
    shape: tuple[int, ...]


def flatten_params(params: Params) -> dict[str, Any]:
    """Leaves by path, "/" between keys."""
    return {
        "/".join(entry.key for entry in path): leaf
        for path, leaf in jax.tree.leaves_with_path(params)
    }


def places(rows: Iterable[KeyRow], params: Params) -> dict[str, Place]:
    """Work out the place of every tensor.

    Args:
        rows: the key table.
        params: parameters, or only their shapes (`jax.eval_shape`).

    Returns:
        Tensor name -> place, in the table's order.

    Raises:
        ValueError: if the rows and the parameters do not cover each other exactly.
    """
    leaves, found = flatten_params(params), {}
    covered = dict.fromkeys(leaves, 0)
    for row in rows:
        if row.param not in leaves:
            raise ValueError(f"the key table names {row.param!r}, which is no parameter")
        shape = leaves[row.param].shape
        for name, place in _places_of_row(row, shape):
            found[name] = place
            covered[row.param] += math.prod(place.shape)
    wrong = [path for path, leaf in leaves.items() if covered[path] != math.prod(leaf.shape)]
    if wrong:
        raise ValueError(f"the key table does not cover {wrong[0]!r} exactly")
    return found


def _places_of_row(row: KeyRow, shape: tuple[int, ...]) -> Iterator[tuple[str, Place]]:
    is_stacked = LAYER in row.tensor
    inner = shape[1:] if is_stacked else shape
    i, n = row.share
    width = inner[-1] // n
    part = np.broadcast_to(np.float32(0), (*inner[:-1], width))  # a view: takes no memory
    columns = slice(i * width, (i + 1) * width)
    for layer in range(shape[0]) if is_stacked else (None,):
        place = Place(
            param=row.param,
            index=(..., columns) if layer is None else (layer, ..., columns),
            transform=row.transform,
            shape=row.transform.to_tensor(part).shape,
        )
        yield row.tensor.replace(LAYER, str(layer)), place


def check_tensors(
    found: Mapping[str, Place], shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Compare what a file holds with what the parameters need.

    Args:
        found: what `places` returns.
        shapes: tensor name -> shape, of the file.
        where: what to call the file in errors.

    Raises:
        ValueError: naming the first tensor that is missing, left over or of another shape.
    """
    missing = [name for name in found if name not in shapes]
    extra = [name for name in shapes if name not in found]
    misshaped = [name for name in found if name in shapes and shapes[name] != found[name].shape]
    for fault, names in (
        ("is missing", missing), ("is not part of this network", extra)
    ):  # fmt: skip
        if names:
            raise ValueError(f"{where}: tensor {names[0]!r} {fault} ({len(names)} such in all)")
    if misshaped:
        name = misshaped[0]
        raise ValueError(
            f"{where}: tensor {name!r} has shape {shapes[name]}, this network needs "
            f"{found[name].shape} ({len(misshaped)} such in all)"
        )


def import_params(
    found: Mapping[str, Place], read: Callable[[str], np.ndarray], params: Params
) -> Params:
    """Assemble parameters from tensors, one parameter at a time.

    Args:
        found: what `places` returns.
        read: tensor name -> array of the shape that its place says.
        params: shapes and types of the tree to fill. A leaf with a sharding goes to its devices as
            soon as it is complete, so that the host never holds all of them.

    Returns:
        A tree of numpy arrays, or of device arrays where `params` has shardings.
    """
    tensors: dict[str, list[str]] = {}
    for name, place in found.items():
        tensors.setdefault(place.param, []).append(name)

    def assemble(path: Any, leaf: Any) -> Any:
        array = np.empty(leaf.shape, leaf.dtype)
        for name in tensors["/".join(entry.key for entry in path)]:
            array[found[name].index] = found[name].transform.to_param(read(name))
        sharding = getattr(leaf, "sharding", None)
        if sharding is None:
            return array
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: array[index])

    return jax.tree_util.tree_map_with_path(assemble, params)


def export_tensor(leaves: Mapping[str, Any], place: Place, dtype: np.dtype) -> np.ndarray:
    """Return one tensor as its file holds it.

    Args:
        leaves: arrays by path, as `flatten_params` returns them.
        place: where the tensor stands among them.
        dtype: stored type.

    Returns:
        An array in the file's layout.
    """
    part = np.asarray(leaves[place.param][place.index])
    return np.ascontiguousarray(place.transform.to_tensor(part).astype(dtype))
