"""Logical axes of the Flux transformer's parameters, by path; blocks have a leading axis of layers.

Matrices are divided along the width, and along heads or hidden units where they have them.
Vectors (biases, scales) are replicated: they are small, and gathering them costs a message each.
"""

from tpdiff_jax.types import ParamAxes

FLUX_PARAM_AXES: ParamAxes = (
    (r"stem/(patch|text)/kernel", (None, "width")),
    (r"stem/(time|pooled)/inner/kernel", (None, "width")),
    (r"stem/(time|pooled)/outer/kernel", ("width", None)),
    (r"double_blocks/\w+/modulation/kernel", ("layers", "width", "hidden")),
    (r"double_blocks/\w+/attention/qkv/kernel", ("layers", "width", "heads")),
    (r"double_blocks/\w+/attention/out/kernel", ("layers", "heads", "width")),
    (r"double_blocks/\w+/feed_forward/inner/kernel", ("layers", "width", "hidden")),
    (r"double_blocks/\w+/feed_forward/outer/kernel", ("layers", "hidden", "width")),
    (r"single_blocks/modulation/kernel", ("layers", "width", "hidden")),
    (r"single_blocks/attention/qkv/kernel", ("layers", "width", "heads")),
    (r"single_blocks/inner/kernel", ("layers", "width", "hidden")),
    (r"single_blocks/outer/kernel", ("layers", "hidden", "width")),
    (r"head/modulation/kernel", ("width", "hidden")),
    (r"head/patch/kernel", ("width", None)),
    (r".*/(bias|scale)", ()),
)
