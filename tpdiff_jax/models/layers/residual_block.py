"""The residual block of latent-diffusion networks and autoencoders, one frame at a time."""

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.layers.basic import Conv, FrameGroupNorm, Linear
from tpdiff_jax.types import Array

SAME = ((1, 1), (1, 1))
AFTER = ((0, 1), (0, 1))
"""Padding of encoders before they halve the sides: below and on the right only."""


def frame_conv(
    channels: int,
    out_channels: int,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    *,
    stride: int = 1,
    padding: tuple[tuple[int, int], tuple[int, int]] = SAME,
    is_zero: bool = False,
) -> Conv:
    """Return a 3 x 3 convolution of every frame, [..., h, w, c] -> [..., h', w', d].

    Args:
        channels: c.
        out_channels: d.
        dtype: compute type.
        rngs: random streams.
        stride: along both sides.
        padding: rows before and after, columns before and after.
        is_zero: start at zero.
    """
    lecun, zeros = nnx.initializers.lecun_normal(), nnx.initializers.zeros_init()
    return Conv(
        channels,
        out_channels,
        (3, 3),
        stride,
        padding=padding,
        dtype=dtype,
        kernel_init=zeros if is_zero else lecun,
        rngs=rngs,
    )


def twice(x: Array) -> Array:
    """Twice the rows and columns, each value four times: [b, f, h, w, c] -> [b, f, 2h, 2w, c]."""
    return jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)


class ResidualBlock(nnx.Module):
    """shortcut(x) + conv(silu(norm(conv(silu(norm(x))) + time))); zero-initialised at its end.

    The shortcut is linear where the width changes, else x itself. Without `time_dim` nothing is
    added in the middle.

    Source: He et al., arXiv 1603.05027; Rombach et al., arXiv 2112.10752.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        *,
        num_groups: int,
        epsilon: float,
        time_dim: int | None = None,
    ):
        self.norm_1 = FrameGroupNorm(channels, num_groups, epsilon)
        self.conv_1 = frame_conv(channels, out_channels, dtype, rngs)
        self.time = Linear(time_dim, out_channels, dtype=dtype, rngs=rngs) if time_dim else None
        self.norm_2 = FrameGroupNorm(out_channels, num_groups, epsilon)
        self.conv_2 = frame_conv(out_channels, out_channels, dtype, rngs, is_zero=True)
        self.shortcut = (
            Linear(channels, out_channels, dtype=dtype, rngs=rngs)
            if channels != out_channels
            else None
        )

    def __call__(self, x: Array, time: Array | None = None) -> Array:
        """[b, f, h, w, c], activated time embedding [b, e] -> [b, f, h, w, d]."""
        y = self.conv_1(jax.nn.silu(self.norm_1(x)))
        if self.time is not None and time is not None:
            y = y + self.time(time)[:, None, None, None, :]
        y = self.conv_2(jax.nn.silu(self.norm_2(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))
