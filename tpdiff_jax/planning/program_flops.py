"""Matrix-product FLOPs that a traced program executes: recomputation and kernels included.

Counted on the jaxpr, where every loop states its length and a Pallas kernel its grid. The
compiler's own count knows neither: it takes a loop's body once and a kernel for nothing.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def matmul_flops(jaxpr: core.Jaxpr) -> float:
    """Return the FLOPs of all matrix products and convolutions, over all devices together.

    A conditional counts as its costliest branch, a loop of unknown length as one trip.
    """
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: core.JaxprEqn) -> float:
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        depth = math.prod(_shape(equation.invars[0])[axis] for axis in contracted)
        return 2.0 * depth * math.prod(_shape(equation.outvars[0]))
    if name == "conv_general_dilated":
        kernel = _shape(equation.invars[1])
        out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        spread = math.prod(
            equation.params["lhs_dilation"]
        )  # backward of a stride: the rest is zeros
        num_outputs = math.prod(_shape(equation.outvars[0]))
        return 2.0 * num_outputs * math.prod(kernel) / out_channels / spread
    inner = [matmul_flops(jaxpr) for jaxpr in _inner_jaxprs(equation.params)]
    if name == "cond":
        return max(inner)
    return _repeats(equation) * sum(inner)


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def _repeats(equation: core.JaxprEqn) -> int:
    """How often the jaxprs inside an equation run, over all devices."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return params["length"]
    if name == "pallas_call":
        return math.prod(size for size in params["grid_mapping"].grid if isinstance(size, int))
    if name == "shard_map":  # its body holds one device's share
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    return 1


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item
