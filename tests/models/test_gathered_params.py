"""What is gathered of a network's parameters, and what stays divided."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from tpdiff_jax.models.gathered_params import gather_width
from tpdiff_jax.models.one_device import OneDevice
from tpdiff_jax.types import Array

TABLE = (
    (r"stem/kernel", (None, "width")),
    (r"blocks/qkv/kernel", ("layers", "width", "heads")),
    (r".*/bias", ()),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Recorder(OneDevice):
    """Notes the axes that arrays are divided along."""

    calls: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)

    def constrain(self, x: Array, *axes: str | None) -> Array:
        self.calls.append((x.shape, axes))
        return x


def test_the_width_is_gathered_and_heads_stay_divided() -> None:
    layout = Recorder()
    layer = {"qkv": {"kernel": np.ones((8, 6)), "bias": np.ones(6)}}
    whole = gather_width(TABLE, layout, layer, "blocks")
    jax.tree.map(np.testing.assert_array_equal, whole, layer)
    gather_width(TABLE, layout, {"kernel": np.ones((4, 8))}, "stem")
    assert layout.calls == [((8, 6), (None, "heads")), ((4, 8), (None, None))]


def test_a_gradient_is_shared_out_as_its_parameter_is() -> None:
    layout = Recorder()
    jax.grad(lambda w: gather_width(TABLE, layout, {"kernel": w}, "stem")["kernel"].sum())(
        np.ones((4, 8), np.float32)
    )
    assert layout.calls == [((4, 8), (None, None)), ((4, 8), (None, "width"))]


def test_a_stack_of_layers_keeps_its_first_axis() -> None:
    layout = Recorder()
    gather_width(TABLE, layout, {"qkv": {"kernel": np.ones((3, 8, 6))}}, "blocks")
    assert layout.calls == [((3, 8, 6), ("layers", None, "heads"))]


def test_a_parameter_that_the_table_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="matches stem/scale"):
        gather_width(TABLE, OneDevice(), {"scale": np.ones(4)}, "stem")
