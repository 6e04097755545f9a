"""Logical axes of the video DiT's parameters, by path; blocks have a leading axis of layers.

Matrices are divided along the width, and along heads or hidden units where they have them.
Vectors (biases, scales) are replicated: they are small, and gathering them costs a message each.
So are convolutional levels, which are far narrower than the blocks.
"""

from tpdiff_jax.types import ParamAxes

VIDEO_DIT_PARAM_AXES: ParamAxes = (
    (r"stem/patch/kernel", (None, "width")),
    (r"stem/label/table", (None, "width")),
    (r"stem/(time|stride/(time|space))/inner/kernel", (None, "width")),
    (r"stem/(time|stride/(time|space))/outer/kernel", ("width", None)),
    (r"blocks/modulation/kernel", ("layers", "width", "hidden")),
    (r"blocks/attention/\w+/qkv/kernel", ("layers", "width", "heads")),
    (r"blocks/attention/\w+/out/kernel", ("layers", "heads", "width")),
    (r"blocks/feed_forward/inner/kernel", ("layers", "width", "hidden")),
    (r"blocks/feed_forward/outer/kernel", ("layers", "hidden", "width")),
    (r"head/modulation/kernel", ("width", "hidden")),
    (r"head/patch/kernel", ("width", None)),
    (r"(folds|down_\d+|up_\d+)/.*", ()),
    (r".*/(bias|scale)", ()),
)
