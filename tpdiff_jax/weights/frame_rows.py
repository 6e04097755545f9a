"""Rows of the parts that latent-diffusion networks and autoencoders share, of frames and videos."""

import numpy as np
from einops import rearrange

from tpdiff_jax.weights.key_table import KeyRow, Transform

# PyTorch keeps [out, in, row, column], flax [row, column, in, out].
CONVOLUTION = Transform(
    lambda x: np.transpose(x, (2, 3, 1, 0)), lambda x: np.transpose(x, (3, 2, 0, 1))
)
# A 1 x 1 convolution is a linear layer here.
POINTWISE = Transform(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])
# The same with time in front of row and column.
CONVOLUTION_3D = Transform(
    lambda x: np.transpose(x, (2, 3, 4, 1, 0)), lambda x: np.transpose(x, (4, 3, 0, 1, 2))
)
# Over time alone, [time, 1, in, out] here: an image that has frames for rows.
TIME_CONVOLUTION = Transform(
    lambda x: np.transpose(x[..., 0], (2, 3, 1, 0)),
    lambda x: np.transpose(x, (3, 2, 0, 1))[..., None],
)
POINTWISE_3D = Transform(lambda x: x[:, :, 0, 0, 0].T, lambda x: x.T[:, :, None, None, None])


def convolution_rows(tensor: str, param: str) -> list[KeyRow]:
    """Rows of a convolution with a bias."""
    return [KeyRow(f"{tensor}.weight", f"{param}/kernel", CONVOLUTION), *_bias(tensor, param)]


def pointwise_rows(tensor: str, param: str) -> list[KeyRow]:
    """Rows of a 1 x 1 convolution with a bias."""
    return [KeyRow(f"{tensor}.weight", f"{param}/kernel", POINTWISE), *_bias(tensor, param)]


def convolution_3d_rows(tensor: str, param: str) -> list[KeyRow]:
    """Rows of a convolution over time, rows and columns with a bias."""
    return [KeyRow(f"{tensor}.weight", f"{param}/kernel", CONVOLUTION_3D), *_bias(tensor, param)]


def pointwise_3d_rows(tensor: str, param: str) -> list[KeyRow]:
    """Rows of a 1 x 1 x 1 convolution with a bias."""
    return [KeyRow(f"{tensor}.weight", f"{param}/kernel", POINTWISE_3D), *_bias(tensor, param)]


def time_convolution_rows(tensor: str, param: str) -> list[KeyRow]:
    """Rows of a convolution over time, one pixel wide, with a bias."""
    return [KeyRow(f"{tensor}.weight", f"{param}/kernel", TIME_CONVOLUTION), *_bias(tensor, param)]


def patch_rows(tensor: str, param: str, patch_size: int) -> list[KeyRow]:
    """Rows of a convolution over patches of one frame: a linear layer of (row, column, channel).

    Args:
        tensor: its name in the file.
        param: its path among the parameters.
        patch_size: side of a patch.

    Returns:
        Rows of kernel and bias.
    """
    sizes = {"p": patch_size, "q": patch_size}
    patches = Transform(
        lambda x: rearrange(x, "d c 1 p q -> (p q c) d"),
        lambda x: rearrange(x, "(p q c) d -> d c 1 p q", **sizes),
    )
    return [KeyRow(f"{tensor}.weight", f"{param}/kernel", patches), *_bias(tensor, param)]


def norm_rows(tensor: str, param: str) -> list[KeyRow]:
    """Rows of a norm with scale and shift."""
    return [KeyRow(f"{tensor}.weight", f"{param}/scale"), *_bias(tensor, param)]


def residual_rows(tensor: str, param: str, has_shortcut: bool) -> list[KeyRow]:
    """Rows of a residual block, without its noise time.

    Args:
        tensor: its name in the file.
        param: its path among the parameters.
        has_shortcut: whether its input and output differ in channels.

    Returns:
        Rows of two norms, two convolutions and the shortcut.
    """
    return [
        *norm_rows(f"{tensor}.norm1", f"{param}/norm_1"),
        *convolution_rows(f"{tensor}.conv1", f"{param}/conv_1"),
        *norm_rows(f"{tensor}.norm2", f"{param}/norm_2"),
        *convolution_rows(f"{tensor}.conv2", f"{param}/conv_2"),
        *(pointwise_rows(f"{tensor}.conv_shortcut", f"{param}/shortcut") if has_shortcut else []),
    ]


def _bias(tensor: str, param: str) -> list[KeyRow]:
    return [KeyRow(f"{tensor}.bias", f"{param}/bias")]
