"""Logical axes of Open-Sora's parameters, by path; blocks have a leading axis of layers.

Matrices are divided along the width, and along heads or hidden units where they have them.
Vectors and tables are replicated.
"""

from tpdiff_jax.types import ParamAxes

OPEN_SORA_PARAM_AXES: ParamAxes = (
    (r"stem/patch/kernel", (None, "width")),
    (r"stem/(text|time|fps)/inner/kernel", (None, "width")),
    (r"stem/(text|time|fps)/outer/kernel", ("width", None)),
    (r"stem/modulation/kernel", ("width", "hidden")),
    (r"blocks/\w+/(attention/\w+|cross_attention)/(qkv|q|kv)/kernel", ("layers", "width", "heads")),
    (r"blocks/\w+/(attention/\w+|cross_attention)/out/kernel", ("layers", "heads", "width")),
    (r"blocks/\w+/feed_forward/inner/kernel", ("layers", "width", "hidden")),
    (r"blocks/\w+/feed_forward/outer/kernel", ("layers", "hidden", "width")),
    (r"head/patch/kernel", ("width", None)),
    (r".*/(bias|scale|table|no_text|frequencies)", ()),
)
