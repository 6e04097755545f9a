"""Transformers of the U-Net: within a frame and towards the text, and along time.

    x + project_out(block(project_in(norm(x)))),   block: x + attention, x + attention, x + GEGLU

Within a frame the second attention looks at the text. Along time (the motion module) both look at
the same pixel in the other frames, and both add the frames' positions to what they look at.

Source: Rombach et al., arXiv 2112.10752 (spatial); Guo et al., AnimateDiff, arXiv 2307.04725,
section 4.2 (motion); Shazeer, arXiv 2002.05202 (GEGLU).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from tpdiff_jax.models.animatediff.config import AnimateDiffConfig
from tpdiff_jax.models.layers.attention import Attend, Attention, dot_product_attention
from tpdiff_jax.models.layers.attention_kernels import attention_over
from tpdiff_jax.models.layers.basic import DTYPES, EPSILON, FrameGroupNorm, Linear
from tpdiff_jax.types import Array, ArrayLike, Layout

TOKEN_NORM_EPSILON = 1e-5
FEED_FORWARD_RATIO = 4
POSITION_MAX_PERIOD = 10_000.0


class TransformerBlock(nnx.Module):
    """Two attentions and a gated feed-forward layer, each x + f(norm(x))."""

    def __init__(
        self, dim: int, context_dim: int, num_heads: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        def norm() -> nnx.LayerNorm:
            return nnx.LayerNorm(
                dim, epsilon=TOKEN_NORM_EPSILON, use_fast_variance=False, dtype=dtype, rngs=rngs
            )

        hidden = FEED_FORWARD_RATIO * dim
        self.norm_1, self.norm_2, self.norm_3 = norm(), norm(), norm()
        self.attention_1 = Attention(dim, dim, num_heads, dtype, rngs)
        self.attention_2 = Attention(dim, context_dim, num_heads, dtype, rngs)
        self.inner = Linear(dim, 2 * hidden, dtype=dtype, rngs=rngs)
        self.outer = Linear(hidden, dim, dtype=dtype, rngs=rngs)

    def in_frames(self, x: Array, text: Array, attend: Attend) -> Array:
        """Attention within each frame, then to the text, then the feed-forward part.

        Args:
            x: tokens, [b, f, l, d].
            text: encoded captions, [b, 1, m, e].
            attend: attention over l.

        Returns:
            [b, f, l, d].
        """
        y = self.norm_1(x)
        x = x + self.attention_1(y, y, attend)
        x = x + self.attention_2(self.norm_2(x), text, dot_product_attention)
        return x + self._feed_forward(self.norm_3(x))

    def along_time(self, x: Array, positions: Array, attend: Attend) -> Array:
        """Attention over the frames, twice, then the feed-forward part.

        Args:
            x: tokens, [b, l, f, d].
            positions: embedded positions of the frames, [f, d].
            attend: attention over f.

        Returns:
            [b, l, f, d].
        """
        y = self.norm_1(x) + positions
        x = x + self.attention_1(y, y, attend)
        y = self.norm_2(x) + positions
        x = x + self.attention_2(y, y, attend)
        return x + self._feed_forward(self.norm_3(x))

    def _feed_forward(self, x: Array) -> Array:
        hidden, gate = jnp.split(self.inner(x), 2, axis=-1)
        return self.outer(hidden * jax.nn.gelu(gate, approximate=False))


class Transformer(nnx.Module):
    """A block between two projections; zero-initialised at its end, so that it starts as x.

    Either `in_frames`, with the text as the second attention's context, or `along_time`.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        config: AnimateDiffConfig,
        rngs: nnx.Rngs,
        is_over_frames: bool = False,
    ):
        dtype, zeros = DTYPES[config.dtype], nnx.initializers.zeros_init()
        self.norm = FrameGroupNorm(dim, config.num_groups, EPSILON, is_over_frames)
        self.project_in = Linear(dim, dim, dtype=dtype, rngs=rngs)
        self.block = TransformerBlock(dim, context_dim, config.num_heads, dtype, rngs)
        self.project_out = Linear(dim, dim, kernel_init=zeros, dtype=dtype, rngs=rngs)
        self.kernel = config.attention_kernel

    def in_frames(self, x: Array, text: Array, layout: Layout) -> Array:
        """Stable Diffusion's transformer: attention within frames, as a change to x.

        Args:
            x: [b, f, h, w, d].
            text: encoded captions, [b, m, e].
            layout: the devices.

        Returns:
            [b, f, h, w, d].
        """
        tokens = rearrange(self.norm(x), "b f h w d -> b f (h w) d")
        attend = attention_over("space", self.kernel, layout)
        y = self.block.in_frames(self.project_in(tokens), text[:, None], attend)
        return x + self.project_out(y).reshape(x.shape)

    def along_time(self, x: Array, frame_positions: ArrayLike, layout: Layout) -> Array:
        """AnimateDiff's motion module: attention over frames, as a change to x.

        Args:
            x: [b, f, h, w, d].
            frame_positions: in the full-rate video, [f].
            layout: the devices.

        Returns:
            [b, f, h, w, d].
        """
        height, width = x.shape[2:4]
        tokens = rearrange(self.norm(x), "b f h w d -> b (h w) f d")
        attend = attention_over("time", self.kernel, layout)
        positions = embed_positions(frame_positions, x.shape[-1]).astype(x.dtype)
        y = self.project_out(self.block.along_time(self.project_in(tokens), positions, attend))
        return x + rearrange(y, "b (h w) f d -> b f h w d", h=height, w=width)


def embed_positions(positions: ArrayLike, dim: int) -> Array:
    """sin(p w_j), cos(p w_j) in turn, w_j = 10000^(-2 j / dim).

    The published modules keep the rows of p = 0, 1, 2, ... as a table; a stage of the pyramid
    takes those of its frames' positions in the full-rate video, which need not be whole numbers.

    Args:
        positions: frame positions p, [f].
        dim: even number of features.

    Returns:
        float32, [f, dim].

    Source: Vaswani et al., arXiv 1706.03762, section 3.5.
    """
    frequencies = np.exp(
        -math.log(POSITION_MAX_PERIOD) * np.arange(0, dim, 2, dtype=np.float64) / dim
    )
    angles = jnp.asarray(positions, jnp.float32)[:, None] * frequencies.astype(np.float32)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(-1, dim)
