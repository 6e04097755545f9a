"""What of a network is trained: all of it, some parameters, or low-rank changes of some.

    params = merge(trained, frozen)

`trained` is what the optimizer, the moving average and the gradients see; `frozen` never changes.
Without low rank the two are parts of one tree. With rank r every matching matrix W stays frozen and

    W + (alpha / r) A B,   A [d_in, r] drawn, B [r, d_out] zero at the start

takes its place, so a fresh adaptation changes nothing. Works on any network: parameters are found
by their paths.

Source: Hu et al., LoRA, arXiv 2106.09685, section 4.1.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from tpdiff_jax.checks import check_above, check_at_least
from tpdiff_jax.types import Array, ParamAxes, Params, PRNGKey

KERNEL, LOW_A, LOW_B = "kernel", "lora_a", "lora_b"
LORA_AXES: ParamAxes = ((rf".*/({LOW_A}|{LOW_B})", ()),)
"""Low-rank matrices are small; every device holds them whole."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Fields of the config group `adaptation`.

    Attributes:
        trained: pattern of the paths of what is trained, such as `.*/motion/.*`; "" is all.
        rank: of low-rank changes to the matrices among them; 0 trains the parameters themselves.
        alpha: low-rank changes are scaled by alpha / rank.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    trained: str = ""
    rank: int = 0
    alpha: float = 1.0

    def __post_init__(self) -> None:
        try:
            re.compile(self.trained)
        except re.error as error:
            raise ValueError(
                f"adaptation.trained={self.trained!r} is no regular expression: {error}"
            ) from error
        check_at_least("adaptation.rank", self.rank, 0)
        check_above("adaptation.alpha", self.alpha, 0)

    def chosen(self, params: Params) -> dict[str, Any]:
        """Return the parameters (or their shapes) that `trained` matches, by path.

        Raises:
            ValueError: when there is none.
        """
        leaves = flatten_dict(dict(params), sep="/")
        chosen = {path: leaf for path, leaf in leaves.items() if self._is_trained(path, leaf)}
        if not chosen:
            what = "matrix" if self.rank else "parameter"
            raise ValueError(f"adaptation.trained={self.trained!r} matches the path of no {what}")
        return chosen

    def split(self, params: Params, key: PRNGKey) -> tuple[Params, Params]:
        """Return (trained, frozen) of a network's parameters.

        Args:
            params: nested dicts of arrays.
            key: of the low-rank matrices.

        Raises:
            ValueError: when nothing matches `trained`.
        """
        chosen = self.chosen(params)
        if self.rank:
            keys = jax.random.split(key, len(chosen))
            low = [self._low_rank(*item) for item in zip(chosen.items(), keys, strict=True)]
            return _nested({path: leaf for part in low for path, leaf in part.items()}), params
        leaves = flatten_dict(dict(params), sep="/")
        rest = {path: leaf for path, leaf in leaves.items() if path not in chosen}
        return _nested(chosen), _nested(rest)

    def merge(self, trained: Params, frozen: Params) -> Params:
        """Return the network's parameters."""
        if not frozen:
            return trained
        changes, leaves = flatten_dict(dict(trained), sep="/"), flatten_dict(dict(frozen), sep="/")
        if not self.rank:
            return _nested(leaves | changes)
        for path in changes:
            owner, _, name = path.rpartition("/")
            if name == LOW_A:
                change = self._change(changes[path], changes[f"{owner}/{LOW_B}"])
                leaves[f"{owner}/{KERNEL}"] = leaves[f"{owner}/{KERNEL}"] + change
        return _nested(leaves)

    def param_axes(self, network_axes: ParamAxes) -> ParamAxes:
        """Return the axes of trained and frozen parameters alike."""
        return LORA_AXES + network_axes if self.rank else network_axes

    def _is_trained(self, path: str, leaf: Any) -> bool:
        is_matrix = path.rpartition("/")[2] == KERNEL and leaf.ndim >= 2
        matches = not self.trained or re.fullmatch(self.trained, path) is not None
        return matches and (is_matrix or not self.rank)

    def _low_rank(self, item: tuple[str, Array], key: PRNGKey) -> dict[str, Array]:
        path, kernel = item
        owner, (*stack, d_in, d_out) = path.rpartition("/")[0], kernel.shape
        limit = 1.0 / math.sqrt(d_in)
        shape = (*stack, d_in, self.rank)
        return {
            f"{owner}/{LOW_A}": jax.random.uniform(key, shape, jnp.float32, -limit, limit),
            f"{owner}/{LOW_B}": jnp.zeros((*stack, self.rank, d_out), jnp.float32),
        }

    def _change(self, low_a: Array, low_b: Array) -> Array:
        return (self.alpha / self.rank) * (low_a @ low_b)


def union(trained: Params, frozen: Params) -> Params:
    """Return one tree with the leaves of both, for what is known of leaves by their paths."""
    return _nested(flatten_dict(dict(frozen), sep="/") | flatten_dict(dict(trained), sep="/"))


def _nested(leaves: dict[str, Any]) -> dict[str, Any]:
    return unflatten_dict(leaves, sep="/")
