"""Adapters of files and low-rank changes of parameters: exactly the same.

Files have one pair A, B for each of their matrices. Here layers are stacked, and queries, keys and
values may share one kernel and so one A. Towards files a stack is cut into layers and B into the
rows of each matrix, all with the same A. Merging into kernels needs no A of anybody.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from tpdiff_jax.models.adapter_names import KERNEL_ENDING, AdapterNames
from tpdiff_jax.models.layers.basic import LOW_RANK_NAMES
from tpdiff_jax.types import Params
from tpdiff_jax.weights.adapter_files import AdapterFile, LowRankPair, some_names
from tpdiff_jax.weights.key_table import LAYER, Place, flatten_params, places

WEIGHT = ".weight"


class AdaptedNetwork(NamedTuple):
    """What must be known of a network to read or write its adapters.

    Attributes:
        names: of its modules.
        config: of the network.
        shapes: its parameters, or their shapes.
    """

    names: AdapterNames
    config: Any
    shapes: Params

    def modules(self, layout: str) -> dict[str, Place]:
        """Return the places of all matrices that can have a change, by name of the module.

        Args:
            layout: of the file: it may arrange a matrix's inputs or outputs in its own way.
        """
        kernels = {
            p: x for p, x in flatten_params(self.shapes).items() if p.endswith(KERNEL_ENDING)
        }
        rows = self.names.rows(self.config, self.shapes, layout)
        found = places(
            [row for row in rows if row.param in kernels], unflatten_dict(kernels, sep="/")
        )
        return {name.removesuffix(WEIGHT): place for name, place in found.items()}


class Orders(NamedTuple):
    """Where a kernel's inputs and outputs stand in a file's matrix.

    Attributes:
        inputs: of every input place of the file's matrix, its number in the kernel; [in, ...].
        outputs: the same of its outputs, [out].
    """

    inputs: np.ndarray
    outputs: np.ndarray


def orders_of(place: Place, kernel_shape: tuple[int, ...]) -> Orders:
    """Work out the orders of a matrix of which the kernel has all or a part.

    Without touching its numbers: rows and columns of a grid of numbers are rearranged as it is.
    """
    layer, columns = layer_and_columns(place)
    window = kernel_shape[:-1] if layer is None else kernel_shape[1:-1]
    width = columns.stop - columns.start
    number = np.arange(math.prod(window)).reshape(*window, 1)
    inputs = place.transform.to_tensor(np.broadcast_to(number, (*window, width)))
    outputs = place.transform.to_tensor(np.broadcast_to(np.arange(width), (*window, width)))
    return Orders(inputs[0], outputs.reshape(width, -1)[:, 0])


def layer_and_columns(place: Place) -> tuple[int | None, slice]:
    """Return the part of a stacked or shared kernel that a matrix is; no layer where none is."""
    layer, columns = place.index[0], place.index[-1]
    return (None if layer is Ellipsis else layer), columns


def pairs_of_low_rank(
    low: Params, network: AdaptedNetwork, layout: str, scale: float
) -> dict[str, LowRankPair]:
    """Take low-rank changes apart into the pairs of a file.

    Args:
        low: low-rank matrices, at the paths of the kernels that they change.
        network: whose.
        layout: of the file.
        scale: alpha / rank.

    Returns:
        Name of a module -> its change, float32, contiguous.
    """
    leaves, shapes = flatten_params(low), flatten_params(network.shapes)
    pairs = {}
    for name, place in network.modules(layout).items():
        owner = place.param.removesuffix(KERNEL_ENDING)
        if f"{owner}/{LOW_RANK_NAMES[0]}" not in leaves:
            continue
        low_a, low_b = (np.asarray(leaves[f"{owner}/{end}"], np.float32) for end in LOW_RANK_NAMES)
        layer, columns = layer_and_columns(place)
        if layer is not None:
            low_a, low_b = low_a[layer], low_b[layer]
        orders, rank = orders_of(place, shapes[place.param].shape), low_a.shape[-1]
        a = low_a.reshape(-1, rank).T[:, orders.inputs]
        b = low_b[:, columns].T[orders.outputs].reshape(-1, rank, *(1,) * (a.ndim - 2))
        pairs[name] = LowRankPair(np.ascontiguousarray(a), np.ascontiguousarray(b), scale)
    return pairs


def named_pairs(file: AdapterFile, network: AdaptedNetwork) -> dict[str, LowRankPair]:
    """Return the pairs of a file by the names of this network's modules.

    Args:
        file: an adapter.
        network: what it should change.

    Raises:
        ValueError: naming the tensors that are no part of the network, or have other shapes.
    """
    modules = network.modules(file.layout)
    aliases = _aliases(network.names, modules)
    unknown = [name for name in file.pairs if name not in aliases]
    if unknown:
        raise ValueError(
            f"{file.path} changes {some_names(unknown)}, which are no matrices of this network "
            f"({len(unknown)} of {len(file.pairs)} in all)"
        )
    found: dict[str, LowRankPair] = {}
    for name, pair in file.pairs.items():
        names = aliases[name]
        if twice := [module for module in names if module in found]:
            raise ValueError(f"{file.path} changes {twice[0]!r} under two names")
        found |= _rows_of(pair, {module: modules[module].shape[0] for module in names})
    wrong = [
        f"{name}: {_change_shape(pair)}, the network has {modules[name].shape}"
        for name, pair in found.items()
        if _without_ones(_change_shape(pair)) != _without_ones(modules[name].shape)
    ]
    if wrong:
        raise ValueError(f"{file.path} changes matrices of other shapes: {some_names(wrong)}")
    return found


def _aliases(names: AdapterNames, modules: Mapping[str, Place]) -> dict[str, tuple[str, ...]]:
    """Return for every name that a file may use the modules that it means."""
    num_layers = 1 + max(
        (layer_and_columns(place)[0] or 0 for place in modules.values()), default=0
    )
    aliases: dict[str, tuple[str, ...]] = {}
    for alias, parts in names.fused.items():
        for i in range(num_layers):
            of_layer = tuple(part.replace(LAYER, str(i)) for part in parts)
            if all(part in modules for part in of_layer):
                aliases[alias.replace(LAYER, str(i))] = of_layer
    aliases |= {names.native(module): (module,) for module in modules}
    aliases |= {module: (module,) for module in modules}
    return {alias.replace(".", "_"): parts for alias, parts in aliases.items()} | aliases


def _rows_of(pair: LowRankPair, rows: Mapping[str, int]) -> dict[str, LowRankPair]:
    """Share the rows of B out among modules; what is too much or too little shows in the last."""
    found: dict[str, LowRankPair] = {}
    start = 0
    for module, count in rows.items():
        is_last = len(found) == len(rows) - 1
        part = pair.low_b[start:] if is_last else pair.low_b[start : start + count]
        found[module] = pair._replace(low_b=part)
        start += count
    return found


def _change_shape(pair: LowRankPair) -> tuple[int, ...]:
    return (pair.low_b.shape[0], *pair.low_a.shape[1:])


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def merge_adapter(
    params: Params,
    pairs: Mapping[str, LowRankPair],
    network: AdaptedNetwork,
    layout: str,
    scale: float,
) -> Params:
    """Add an adapter to the kernels that it changes.

    Args:
        params: the network's parameters, on devices or not.
        pairs: by name of the module.
        network: whose they are.
        layout: of the file that the pairs came from.
        scale: strength; 1 is what the adapter was made for, 0 leaves the network as it is.

    Returns:
        The parameters, where and as they were.
    """
    leaves, changes = flatten_params(params), dict[str, np.ndarray]()
    for name, place in network.modules(layout).items():
        if name not in pairs:
            continue
        pair = pairs[name]
        product = pair.low_b.reshape(-1, pair.rank) @ pair.low_a.reshape(pair.rank, -1)
        change = scale * pair.scale * product.reshape(place.shape)
        whole = changes.setdefault(place.param, np.zeros(leaves[place.param].shape, np.float32))
        whole[place.index] += place.transform.to_param(change)
    for path, change in changes.items():
        leaves[path] = leaves[path] + placed_like(leaves[path], change)
    return unflatten_dict(leaves, sep="/")


def placed_like(leaf: Any, array: np.ndarray) -> Any:
    """Place an array on the devices as another one lies there; beside a numpy array it stays."""
    if not isinstance(leaf, jax.Array):
        return array
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: array[index])
