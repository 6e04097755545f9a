"""Layers shared by the networks: linear, convolution, normalisation, modulation, feed-forward.

Parameters are float32; matrix products run in the compute dtype; every reduction (means,
variances) runs in float32.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from tpdiff_jax.types import Array

EPSILON = 1e-6
LOW_RANK_NAMES = ("lora_a", "lora_b")
"""Parameters of a low-rank change, beside the kernel that it changes."""
TAPS = 9
"""Pixels that a 3x3 convolution sees."""
DTYPES: dict[str, jnp.dtype] = {
    "float32": jnp.dtype(jnp.float32),
    "bfloat16": jnp.dtype(jnp.bfloat16),
}
"""Compute types that a config may name."""


def gelu_tanh(x: Array) -> Array:
    """Gaussian error linear unit, tanh form (arXiv 1606.08415, section 2)."""
    return jax.nn.gelu(x, approximate=True)


def relu_squared(x: Array) -> Array:
    """max(x, 0)^2 (arXiv 2109.08668, Eq. 1): no transcendental function."""
    return jnp.square(jax.nn.relu(x))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": jax.checkpoint(gelu_tanh),  # the backward pass keeps x alone
    "silu": jax.nn.silu,
    "relu_squared": relu_squared,
}


def layer_norm(x: Array) -> Array:
    """Normalise each token to zero mean and unit variance, without learned scale or shift.

    Args:
        x: [..., d].

    Returns:
        (x - mean) / sqrt(var + 1e-6), same shape and dtype; moments in float32.
    """
    x_f32 = x.astype(jnp.float32)
    # Around the mean: E[x^2] - E[x]^2 is as fast, and has no digit left far from 0.
    centred = x_f32 - jnp.mean(x_f32, axis=-1, keepdims=True)
    var = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(var + EPSILON)).astype(x.dtype)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """Adaptive layer norm: x (1 + scale) + shift, the same for every token of a sample.

    Args:
        x: tokens, [b, ..., d].
        shift: [b, d].
        scale: [b, d].

    Returns:
        Tokens, same shape and dtype as x.

    Source: Peebles and Xie, DiT, arXiv 2212.09748, section 3.2.
    """
    return x * (1.0 + over_tokens(scale, x)) + over_tokens(shift, x)


@jax.checkpoint
def modulated_norm(x: Array, shift: Array, scale: Array) -> Array:
    """`modulate` of `layer_norm`; the backward pass keeps x and computes the rest again.

    Args:
        x: tokens, [b, ..., d].
        shift: [b, d].
        scale: [b, d].

    Returns:
        Tokens, same shape and dtype as x.
    """
    return modulate(layer_norm(x), shift, scale)


def over_tokens(per_sample: Array, tokens: Array) -> Array:
    """Reshape [b, d] so that it broadcasts over the tokens [b, ..., d], in their dtype."""
    middle = (1,) * (tokens.ndim - 2)
    return per_sample.reshape(per_sample.shape[0], *middle, -1).astype(tokens.dtype)


class LowRank(nnx.Module):
    """A layer that computes a low-rank change beside its kernel where its parameters hold one.

    The parameters are `lora_a` and `lora_b`, any scale is already in the first of them. The kernel
    then needs no gradient of its own, which a sum of the two matrices would.

    Source: Hu et al., LoRA, arXiv 2106.09685, section 4.1.
    """

    lora_a: nnx.Param[Array] | None = None
    lora_b: nnx.Param[Array] | None = None

    def take_low_rank(self) -> None:
        """Make room for the change; only the structure matters, the arrays come with `bind`."""
        self.lora_a, self.lora_b = nnx.Param(jnp.zeros(())), nnx.Param(jnp.zeros(()))


def _weight_gradient(x: Array, dy: Array) -> Array:
    """x^T dy summed over all tokens: [..., d_in], [..., d_out] -> [d_in, d_out]."""
    return jax.lax.dot_general(x, dy, ((tuple(range(x.ndim - 1)),) * 2, ((), ())))


def _weight_gradient_on_cpu(x: Array, dy: Array) -> Array:
    """`_weight_gradient` in the operands' order that XLA's CPU kernels take.

    The first operand is copied to its transpose, so the narrower one comes first; the barrier keeps
    the compiler from turning the product round again.
    """
    if x.shape[-1] <= dy.shape[-1]:
        return _weight_gradient(x, dy)
    return jax.lax.optimization_barrier(_weight_gradient(dy, x)).T


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """Multiply x W, with a gradient of W that is one product in the kernel's own layout.

    The gradient that JAX derives is the transpose of (dy^T x), a product of two transposed
    operands, for which XLA on CPU has no fast kernel: half the speed. A frozen kernel costs neither
    its gradient nor the memory of x.

    Args:
        x: [..., d_in].
        kernel: [d_in, d_out], same dtype.

    Returns:
        [..., d_out], same dtype.
    """
    return _plain_product(x, kernel)


def _plain_product(x: Array, kernel: Array) -> Array:
    return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _product_fwd(x: Any, kernel: Any) -> tuple[Array, tuple[Array | None, Array | None]]:
    kept_x = x.value if kernel.perturbed else None
    kept_kernel = kernel.value if x.perturbed else None
    # The product itself: of a call of `product` a policy of rematerialisation would see the call.
    return _plain_product(x.value, kernel.value), (kept_x, kept_kernel)


def _product_bwd(kept: tuple[Array | None, Array | None], dy: Any) -> tuple[Any, Any]:
    x, kernel = kept
    if isinstance(dy, SymbolicZero):
        return None, None
    dx = None
    if kernel is not None:
        dx = jax.lax.dot_general(dy, kernel, (((dy.ndim - 1,), (1,)), ((), ())))
    if x is None:
        return dx, None
    return dx, jax.lax.platform_dependent(
        x, dy, cpu=_weight_gradient_on_cpu, default=_weight_gradient
    )


product.defvjp(_product_fwd, _product_bwd, symbolic_zeros=True)


def _dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    return product(x, kernel)


class Linear(LowRank, nnx.Linear):
    """y = x W + bias, and with a low-rank change + (x A) B."""

    def __init__(self, d_in: int, d_out: int, **kwargs: Any):
        super().__init__(d_in, d_out, dot_general=_dot_general, **kwargs)

    def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
        """[..., d_in] -> [..., d_out] in the compute dtype."""
        y = super().__call__(inputs, out_sharding)
        if self.lora_a is None or self.lora_b is None:
            return y
        low = (inputs, self.lora_a[...], self.lora_b[...])
        x, low_a, low_b = self.promote_dtype(low, dtype=self.dtype)
        return y + product(product(x, low_a), low_b)


class Conv(LowRank, nnx.Conv):
    """A convolution of frames, and with a low-rank change + conv(x, A) B.

    A has the kernel's sides and `rank` outputs, B [rank, d] is a 1 x 1 convolution: the form of
    peft. Strides are those of the kernel; padding is given in rows and columns.
    """

    def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
        """[..., h, w, c] -> [..., h', w', d] in the compute dtype."""
        y = super().__call__(inputs, out_sharding)
        if self.lora_a is None or self.lora_b is None:
            return y
        low = (inputs, self.lora_a[...], self.lora_b[...])
        x, low_a, low_b = self.promote_dtype(low, dtype=self.dtype)
        strides = (self.strides,) * 2 if isinstance(self.strides, int) else self.strides
        frames, axes = x.reshape(-1, *x.shape[-3:]), ("NHWC", "HWIO", "NHWC")
        narrow = self.conv_general_dilated(
            frames, low_a, strides, self.padding, dimension_numbers=axes
        )
        return y + (narrow @ low_b).reshape(y.shape)


class MatrixConv(LowRank):
    """A 3x3 convolution of frames, zeros around them, whose kernel is one matrix.

    Its rows are those of an unfolded neighbourhood, (row, column, channel), so that a low-rank
    change, and an optimizer of matrices, take it as they take a linear layer.
    """

    def __init__(self, d_in: int, d_out: int, dtype: DTypeLike, rngs: nnx.Rngs):
        init = nnx.initializers.xavier_uniform()
        self.kernel = nnx.Param(init(rngs.params(), (TAPS * d_in, d_out), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((d_out,), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        """[..., h, w, d_in] -> [..., h, w, d_out] in the compute dtype."""
        x = x.astype(self.dtype)
        y = self._convolve(x, self.kernel[...]) + self.bias[...].astype(self.dtype)
        if self.lora_a is None or self.lora_b is None:
            return y
        return y + product(self._convolve(x, self.lora_a[...]), self.lora_b[...].astype(self.dtype))

    def _convolve(self, x: Array, matrix: Array) -> Array:
        kernel = matrix.astype(self.dtype).reshape(3, 3, x.shape[-1], -1)
        frames, axes = x.reshape(-1, *x.shape[-3:]), ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(frames, kernel, (1, 1), "SAME", dimension_numbers=axes)
        return y.reshape(*x.shape[:-1], -1)


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + 1e-6) with a learned scale (arXiv 1910.07467, Eq. 4)."""

    def __init__(self, dim: int):
        self.scale = nnx.Param(jnp.ones((dim,), jnp.float32))

    def __call__(self, x: Array) -> Array:
        """[..., e] -> [..., e], same dtype; the mean in float32."""
        x_f32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x_f32), axis=-1, keepdims=True)
        return (x_f32 * jax.lax.rsqrt(mean_square + EPSILON) * self.scale[...]).astype(x.dtype)


class FrameGroupNorm(nnx.Module):
    """Group norm of every frame by itself, with a learned scale and shift (arXiv 1803.08494).

    With `is_over_frames` all frames of a video share their moments.
    """

    def __init__(
        self,
        num_channels: int,
        num_groups: int,
        epsilon: float = EPSILON,
        is_over_frames: bool = False,
    ):
        self.scale = nnx.Param(jnp.ones((num_channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((num_channels,), jnp.float32))
        self.num_groups, self.epsilon = num_groups, epsilon
        self.axes = (1, 2, 3) if is_over_frames else (2, 3)

    def __call__(self, x: Array) -> Array:
        """[b, f, h, w, c] -> the same shape and dtype; moments over h, w and a group, float32."""
        x_f32 = x.astype(jnp.float32)
        centred = x_f32 - self._mean(x_f32)
        var = self._mean(jnp.square(centred))
        factor = jax.lax.rsqrt(var + self.epsilon) * self.scale[...]
        return (centred * factor + self.bias[...]).astype(x.dtype)

    def _mean(self, x: Array) -> Array:
        """[b, f, h, w, c] -> [b, f or 1, 1, 1, c], equal within a group.

        Channels first, groups after: whole images with few channels in the last axis fill only a
        part of an accelerator's lanes.
        """
        of_channels = jnp.mean(x, axis=self.axes, keepdims=True)
        groups = of_channels.reshape(*of_channels.shape[:-1], self.num_groups, -1)
        means = jnp.mean(groups, axis=-1, keepdims=True)
        return jnp.broadcast_to(means, groups.shape).reshape(of_channels.shape)


def zero_linear(d_in: int, d_out: int, dtype: DTypeLike, rngs: nnx.Rngs) -> Linear:
    """Return a linear layer that starts at zero, for gates and outputs (adaLN-Zero).

    Args:
        d_in: width of its input.
        d_out: width of its output.
        dtype: of the product; parameters are float32.
        rngs: unused by zeros, asked for by the layer.

    Returns:
        The layer.
    """
    zeros = nnx.initializers.zeros_init()
    return Linear(d_in, d_out, dtype=dtype, kernel_init=zeros, rngs=rngs)


class FeedForward(nnx.Module):
    """Two linear layers with an activation between: W_2 act(W_1 x)."""

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        activation: str,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
        out_dim: int | None = None,
    ):
        init = nnx.initializers.xavier_uniform()
        self.inner = Linear(dim, hidden_dim, dtype=dtype, kernel_init=init, rngs=rngs)
        self.outer = Linear(hidden_dim, out_dim or dim, dtype=dtype, kernel_init=init, rngs=rngs)
        self.activation = activation

    def __call__(self, x: Array) -> Array:
        """[..., d] -> [..., d], or `out_dim` wide."""
        return self.outer(ACTIVATIONS[self.activation](self.inner(x)))
