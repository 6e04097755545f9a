"""Logical axes of a latent-diffusion U-Net's parameters, by path, and of what joins its frames.

Matrices are divided along the width, and along heads or hidden units where they have them;
convolutions along their inputs. Vectors (biases, scales) are replicated: they are small.
"""

from tpdiff_jax.types import ParamAxes

UNET_PARAM_AXES: ParamAxes = (
    (r"stem/conv/kernel", (None, None, None, "width")),
    (r"stem/time/\w+/kernel", ("width", None)),
    (r".*/(conv|conv_1|conv_2)/kernel", (None, None, "width", None)),
    (r".*/(time|shortcut|project_in)/kernel", ("width", None)),
    (r".*/attention_\d/(q|k|v)/kernel", ("width", "heads")),
    (r".*/attention_\d/out/kernel", ("heads", "width")),
    (r".*/block/inner/kernel", ("width", "hidden")),
    (r".*/block/outer/kernel", ("hidden", "width")),
    (r".*/project_out/kernel", (None, "width")),
    (r".*/(bias|scale)", ()),
)
