"""Low-rank changes that start from an adapter.

Matrices of a file that share one kernel here, such as queries, keys and values, may have an A each.
In the kernel's one change they stand side by side,

    [A_q A_k A_v] and B with B_q, B_k, B_v as blocks of its diagonal,

which takes the sum of their ranks; equal A are one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict

from tpdiff_jax.models.adapter_names import KERNEL_ENDING
from tpdiff_jax.models.adapters import AdaptedNetwork, Orders, layer_and_columns, orders_of
from tpdiff_jax.models.layers.basic import LOW_RANK_NAMES
from tpdiff_jax.types import Params
from tpdiff_jax.weights.adapter_files import LowRankPair, some_names
from tpdiff_jax.weights.key_table import Place, flatten_params


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
        by_param.setdefault(place.param.removesuffix(KERNEL_ENDING), {})[name] = place
    trained = sorted({path.rpartition("/")[0] for path in filled})
    _check_trained(by_param, trained, pairs)
    fresh, needed = [], 0
    for owner in trained:
        low_a, low_b = (filled[f"{owner}/{end}"] for end in LOW_RANK_NAMES)
        kernel_shape, low_b[...] = shapes[f"{owner}{KERNEL_ENDING}"].shape, 0.0
        for layer, modules in _by_layer(by_param[owner]):
            a, b = (low_a, low_b) if layer is None else (low_a[layer], low_b[layer])
            fresh += [name for name in modules if name not in pairs]
            given = {
                name: (_of_scale(pairs[name], scale), place, orders_of(place, kernel_shape))
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
    low_a: np.ndarray, low_b: np.ndarray, given: Mapping[str, tuple[LowRankPair, Place, Orders]]
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
            columns = low_b[own, layer_and_columns(place)[1]]  # a view
            columns[:, orders.outputs] = pair.low_b.reshape(-1, pair.rank).T
    return used


def _check_trained(
    by_param: Mapping[str, Mapping[str, Place]],
    trained: Sequence[str],
    pairs: Mapping[str, LowRankPair],
) -> None:
    changed = {owner: [n for n in modules if n in pairs] for owner, modules in by_param.items()}
    extra = [name for owner, names in changed.items() if owner not in trained for name in names]
    missing = [owner + KERNEL_ENDING for owner in trained if not changed.get(owner)]
    if extra:
        raise ValueError(
            f"adaptation.trained leaves out what the adapter changes: {some_names(extra)}"
        )
    if missing:
        raise ValueError(
            f"adaptation.trained takes in what the adapter does not change: {some_names(missing)}"
        )


def _by_layer(modules: Mapping[str, Place]) -> Iterator[tuple[int | None, dict[str, Place]]]:
    layers = dict.fromkeys(layer_and_columns(place)[0] for place in modules.values())
    for layer in layers:
        yield (
            layer,
            {n: place for n, place in modules.items() if layer_and_columns(place)[0] == layer},
        )
