"""What of a network is trained: all of it, some parameters, or low-rank changes of some.

`trained` is what the optimizer, the moving average and the gradients see; `frozen` never changes.
Without low rank the two are parts of one tree. With rank r every matching matrix W stays frozen and

    attach  for training:            y = x W + (alpha / r) (x A) B
    merge   to sample and to export: W + (alpha / r) A B in the place of W

with A [d_in, r] drawn and B [r, d_out] zero at the start, so a fresh adaptation changes nothing.
Beside the matrix, not in it: the gradient of a sum is that of the whole matrix, as costly as
training it. A convolution's A has the kernel's sides, [rows, columns, d_in, r], and its B is a
1 x 1 convolution (the form of peft), so that rank r is that of the kernel as a matrix from a whole
window to d_out. Parameters are found by their paths; `models/layers/basic.py` computes the change.

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

MATRIX, LOW_A, LOW_B = "kernel", "lora_a", "lora_b"
CONV_NDIM = 4
"""Axes of a convolution's kernel; a matrix has two, and a third where blocks are stacked."""
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
            ValueError: when there is none, or one that can have no low-rank change.
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
            ValueError: as `chosen`.
        """
        chosen = self.chosen(params)
        if self.rank:
            keys = jax.random.split(key, len(chosen))
            low = [self._low_rank(*item) for item in zip(chosen.items(), keys, strict=True)]
            return _nested({path: leaf for part in low for path, leaf in part.items()}), params
        leaves = flatten_dict(dict(params), sep="/")
        rest = {path: leaf for path, leaf in leaves.items() if path not in chosen}
        return _nested(chosen), _nested(rest)

    def attach(self, trained: Params, frozen: Params) -> Params:
        """Return what the network is applied to in training: low-rank changes beside the matrices.

        The scale alpha / rank is in every A, so that layers need not know it.
        """
        if self.rank:
            changes = flatten_dict(dict(trained), sep="/")
            scaled = {p: self.scale * x for p, x in changes.items() if p.endswith(LOW_A)}
            trained = _nested(changes | scaled)
        return union(trained, frozen)

    def merge(self, trained: Params, frozen: Params) -> Params:
        """Return the network's parameters, of the shapes that it was made with."""
        if not frozen:
            return trained
        changes, leaves = flatten_dict(dict(trained), sep="/"), flatten_dict(dict(frozen), sep="/")
        if not self.rank:
            return _nested(leaves | changes)
        for path in changes:
            owner, _, name = path.rpartition("/")
            if name == LOW_A:
                change = self._change(changes[path], changes[f"{owner}/{LOW_B}"])
                leaves[f"{owner}/{MATRIX}"] = leaves[f"{owner}/{MATRIX}"] + change
        return _nested(leaves)

    def param_axes(self, network_axes: ParamAxes) -> ParamAxes:
        """Return the axes of trained and frozen parameters alike."""
        return LORA_AXES + network_axes if self.rank else network_axes

    def _is_trained(self, path: str, leaf: Any) -> bool:
        is_matrix = path.rpartition("/")[2] == MATRIX and leaf.ndim >= 2
        matches = not self.trained or re.fullmatch(self.trained, path) is not None
        if matches and is_matrix and self.rank and leaf.ndim > CONV_NDIM:
            raise ValueError(
                f"adaptation.rank={self.rank}: {path} of shape {leaf.shape} can have no low-rank "
                "change; adaptation.trained must leave it out"
            )
        return matches and (is_matrix or not self.rank)

    def _low_rank(self, item: tuple[str, Array], key: PRNGKey) -> dict[str, Array]:
        path, kernel = item
        owner, (*leading, d_in, d_out) = path.rpartition("/")[0], kernel.shape
        is_conv = kernel.ndim == CONV_NDIM
        window, layers = (leading, []) if is_conv else ([], leading)
        limit = 1.0 / math.sqrt(math.prod(window) * d_in)
        shape = (*leading, d_in, self.rank)
        return {
            f"{owner}/{LOW_A}": jax.random.uniform(key, shape, jnp.float32, -limit, limit),
            f"{owner}/{LOW_B}": jnp.zeros((*layers, self.rank, d_out), jnp.float32),
        }

    def _change(self, low_a: Array, low_b: Array) -> Array:
        return self.scale * (low_a @ low_b)  # of a convolution: at every tap

    @property
    def scale(self) -> float:
        """What low-rank changes are multiplied by; there are none where rank is 0."""
        return self.alpha / self.rank


def union(trained: Params, frozen: Params) -> Params:
    """Return one tree with the leaves of both, for what is known of leaves by their paths."""
    return _nested(flatten_dict(dict(frozen), sep="/") | flatten_dict(dict(trained), sep="/"))


def _nested(leaves: dict[str, Any]) -> dict[str, Any]:
    return unflatten_dict(leaves, sep="/")
