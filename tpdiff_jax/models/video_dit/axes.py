"""Logical axes of the video DiT's parameters, by path; blocks have a leading axis of layers.

Matrices are divided along the width, and along heads or hidden units where they have them; where
those are the longer side, along them alone, by both: Muon's products then need fewer messages.
Vectors (biases, scales) are replicated: they are small, and gathering them costs a message each.
"""

from tpdiff_jax.types import ParamAxes

VIDEO_DIT_PARAM_AXES: ParamAxes = (
    (r"stem/patch/kernel", (None, "width")),
    (r"stem/label/table", (None, "width")),
    (r"stem/(time|stride/(time|space))/inner/kernel", (None, "width")),
    (r"stem/(time|stride/(time|space))/outer/kernel", ("width", None)),
    (r"blocks/modulation/kernel", ("layers", None, "hidden and width")),
    (r"blocks/attention/\w+/qkv/kernel", ("layers", None, "heads and width")),
    (r"blocks/attention/\w+/out/kernel", ("layers", "heads", "width")),
    (r"blocks/feed_forward/inner/kernel", ("layers", None, "hidden and width")),
    (r"blocks/feed_forward/outer/kernel", ("layers", "hidden and width", None)),
    (r"head/modulation/kernel", ("width", "hidden")),
    (r"head/patch/kernel", ("width", None)),
    (r".*/(bias|scale)", ()),
)
