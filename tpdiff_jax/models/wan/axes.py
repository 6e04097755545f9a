"""Logical axes of Wan's parameters, by path; blocks have a leading axis of layers.

Matrices are divided along the width, and along heads or hidden units where they have them.
Vectors (biases, scales, tables of modulations) are replicated.
"""

from tpdiff_jax.types import ParamAxes

WAN_PARAM_AXES: ParamAxes = (
    (r"stem/patch/kernel", (None, "width")),
    (r"stem/(text|time)/inner/kernel", (None, "width")),
    (r"stem/(text|time)/outer/kernel", ("width", None)),
    (r"stem/modulation/kernel", ("width", "hidden")),
    (r"blocks/\w+_attention/(q|k|v)/kernel", ("layers", "width", "heads")),
    (r"blocks/\w+_attention/out/kernel", ("layers", "heads", "width")),
    (r"blocks/feed_forward/inner/kernel", ("layers", "width", "hidden")),
    (r"blocks/feed_forward/outer/kernel", ("layers", "hidden", "width")),
    (r"head/patch/kernel", ("width", None)),
    (r".*/(bias|scale|table)", ()),
)
