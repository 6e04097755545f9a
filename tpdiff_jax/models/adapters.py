"""Adapters of files and low-rank changes of parameters: exactly the same, in both directions.

Files have one pair A, B for each of their matrices. Here layers are stacked, and queries, keys and
values may share one kernel and so one A. Towards files a stack is cut into layers and B into the
rows of each matrix, all with the same A. From files, matrices with different A that share a kernel
stand side by side in it,

    [A_q A_k A_v] and B with B_q, B_k, B_v as blocks of its diagonal,

which takes the sum of their ranks; equal A are one. Merging into kernels needs none of this.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from tpdiff_jax.models.adapter_names import KERNEL, AdapterNames
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
        kernels = {p: x for p, x in flatten_params(self.shapes).items() if p.endswith(KERNEL)}
        rows = self.names.rows(self.config, self.shapes, layout)
        found = places(
            [row for row in rows if row.param in kernels], unflatten_dict(kernels, sep="/")
        )
        return {name.removesuffix(WEIGHT): place for name, place in found.items()}


class _Orders(NamedTuple):
    """Where a kernel's inputs and outputs stand in a file's matrix.

    Attributes:
        inputs: of every input place of the file's matrix, its number in the kernel; [in, ...].
        outputs: the same of its outputs, [out].
    """

    inputs: np.ndarray
    outputs: np.ndarray


def _orders(place: Place, kernel_shape: tuple[int, ...]) -> _Orders:
    layer, columns = _index(place)
    window = kernel_shape[:-1] if layer is None else kernel_shape[1:-1]
    width = columns.stop - columns.start
    number = np.arange(math.prod(window)).reshape(*window, 1)
    inputs = place.transform.to_tensor(np.broadcast_to(number, (*window, width)))
    outputs = place.transform.to_tensor(np.broadcast_to(np.arange(width), (*window, width)))
    return _Orders(inputs[0], outputs.reshape(width, -1)[:, 0])


def _index(place: Place) -> tuple[int | None, slice]:
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
        owner = place.param.removesuffix(KERNEL)
        if f"{owner}/{LOW_RANK_NAMES[0]}" not in leaves:
            continue
        low_a, low_b = (np.asarray(leaves[f"{owner}/{end}"], np.float32) for end in LOW_RANK_NAMES)
        layer, columns = _index(place)
        if layer is not None:
            low_a, low_b = low_a[layer], low_b[layer]
        orders, rank = _orders(place, shapes[place.param].shape), low_a.shape[-1]
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
    num_layers = 1 + max((_index(place)[0] or 0 for place in modules.values()), default=0)
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
    found, start = {}, 0
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


class StartedChanges(NamedTuple):
    """Low-rank changes to go on from.

    Attributes:
        low: as those that were given, filled.
        fresh: modules that the adapter does not change: they start at nothing.
    """

    low: Params
    fresh: list[str]


def fill_low_rank(
    low: Params,
    pairs: Mapping[str, LowRankPair],
    network: AdaptedNetwork,
    layout: str,
    scale: float,
) -> StartedChanges:
    """Put an adapter in the place of fresh low-rank changes.

    Rank that the adapter does not use stays as it is: A drawn and B zero.

    Args:
        low: fresh low-rank changes.
        pairs: by name of the module.
        network: whose they are.
        layout: of the file that the pairs came from.
        scale: alpha / rank of the changes.

    Raises:
        ValueError: naming `adaptation.trained` when what is trained and what the adapter changes
            differ, or `adaptation.rank` when it is too small.
    """
    shapes = flatten_params(network.shapes)
    filled = {p: np.array(x, np.float32, order="C") for p, x in flatten_params(low).items()}
    by_param: dict[str, dict[str, Place]] = {}
    for name, place in network.modules(layout).items():
        by_param.setdefault(place.param.removesuffix(KERNEL), {})[name] = place
    trained = sorted({path.rpartition("/")[0] for path in filled})
    _check_trained(by_param, trained, pairs)
    fresh, needed = [], 0
    for owner in trained:
        low_a, low_b = (filled[f"{owner}/{end}"] for end in LOW_RANK_NAMES)
        kernel_shape, low_b[...] = shapes[f"{owner}{KERNEL}"].shape, 0.0
        for layer, modules in _by_layer(by_param[owner]):
            a, b = (low_a, low_b) if layer is None else (low_a[layer], low_b[layer])
            fresh += [name for name in modules if name not in pairs]
            given = {
                name: (_of_scale(pairs[name], scale), place, _orders(place, kernel_shape))
                for name, place in modules.items()
                if name in pairs
            }
            needed = max(needed, _fill_layer(a.reshape(-1, a.shape[-1]), b, given))
    rank = min((x.shape[-1] for p, x in filled.items() if p.endswith(LOW_RANK_NAMES[0])), default=0)
    if needed > rank:
        raise ValueError(f"adaptation.rank is {rank}; allowed: at least {needed}, the adapter's")
    return StartedChanges(unflatten_dict(filled, sep="/"), fresh)


def _of_scale(pair: LowRankPair, scale: float) -> LowRankPair:
    """Return the same change with another scale."""
    factor = pair.scale / scale
    return pair if factor == 1.0 else LowRankPair(pair.low_a, pair.low_b * factor, scale)


def _fill_layer(
    low_a: np.ndarray, low_b: np.ndarray, given: Mapping[str, tuple[LowRankPair, Place, _Orders]]
) -> int:
    """Fill A [d_in, r] and B [r, d_out] of one kernel as far as they reach; return the rank used.

    Modules with equal A share their part of the rank.
    """
    starts: list[tuple[np.ndarray, int]] = []
    used = 0
    for pair, place, orders in given.values():
        start = next((at for a, at in starts if np.array_equal(a, pair.low_a)), None)
        if start is None:
            start, used = used, used + pair.rank
            starts.append((pair.low_a, start))
        if used <= low_a.shape[-1]:
            own = slice(start, start + pair.rank)
            low_a[orders.inputs.ravel(), own] = pair.low_a.reshape(pair.rank, -1).T
            columns = low_b[own, _index(place)[1]]  # a view
            columns[:, orders.outputs] = pair.low_b.reshape(-1, pair.rank).T
    return used


def _check_trained(
    by_param: Mapping[str, Mapping[str, Place]],
    trained: Sequence[str],
    pairs: Mapping[str, LowRankPair],
) -> None:
    changed = {owner: [n for n in modules if n in pairs] for owner, modules in by_param.items()}
    extra = [name for owner, names in changed.items() if owner not in trained for name in names]
    missing = [owner + KERNEL for owner in trained if not changed.get(owner)]
    if extra:
        raise ValueError(
            f"adaptation.trained leaves out what the adapter changes: {some_names(extra)}"
        )
    if missing:
        raise ValueError(
            f"adaptation.trained takes in what the adapter does not change: {some_names(missing)}"
        )


def _by_layer(modules: Mapping[str, Place]) -> Iterator[tuple[int | None, dict[str, Place]]]:
    layers = dict.fromkeys(_index(place)[0] for place in modules.values())
    for layer in layers:
        yield layer, {n: place for n, place in modules.items() if _index(place)[0] == layer}
