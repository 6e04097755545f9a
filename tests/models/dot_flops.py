"""FLOPs of the products and convolutions of a traced program, to compare FLOP models with."""

import numpy as np


def dot_flops(jaxpr):
    """FLOPs of every dot_general and convolution of a jaxpr, inner jaxprs included."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            lhs = equation.invars[0].aval.shape
            inner = np.prod([lhs[axis] for axis in contracted])
            total += 2.0 * inner * np.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * np.prod(kernel) / out_channels * np.prod(equation.outvars[0].aval.shape)
        for value in equation.params.values():
            inner_jaxpr = getattr(value, "jaxpr", value)
            if hasattr(inner_jaxpr, "eqns"):
                total += dot_flops(inner_jaxpr)
    return total
