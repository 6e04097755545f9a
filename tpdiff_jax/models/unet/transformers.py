"""Transformers of the U-Net: within a frame and towards the text, and along time.

    x + project_out(block(project_in(norm(x)))),   block: x + attention, x + attention, x + GEGLU

Within a frame the second attention looks at the text. Along time both look at the same pixel in the
other frames, and where frames have positions both add them to what they look at.

Source: Rombach et al., arXiv 2112.10752 (spatial); Guo et al., AnimateDiff, arXiv 2307.04725,
section 4.2, and Wang et al., ModelScope, arXiv 2308.06571, section 4.2 (along time); Shazeer,
arXiv 2002.05202 (GEGLU).
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from tpdiff_jax.models.layers.attention import Attend, Attention, dot_product_attention
from tpdiff_jax.models.layers.attention_kernels import attention_over
from tpdiff_jax.models.layers.basic import DTYPES, EPSILON, FrameGroupNorm, Linear
from tpdiff_jax.models.unet.config import UNetConfig
from tpdiff_jax.types import Array, Layout

TOKEN_NORM_EPSILON = 1e-5
FEED_FORWARD_RATIO = 4


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

    def along_time(self, x: Array, positions: Array | None, attend: Attend) -> Array:
        """Attention over the frames, twice, then the feed-forward part.

        Args:
            x: tokens, [b, l, f, d].
            positions: embedded positions of the frames, [f, d]; None: they have none.
            attend: attention over f.

        Returns:
            [b, l, f, d].
        """
        y = _at(self.norm_1(x), positions)
        x = x + self.attention_1(y, y, attend)
        y = _at(self.norm_2(x), positions)
        x = x + self.attention_2(y, y, attend)
        return x + self._feed_forward(self.norm_3(x))

    def _feed_forward(self, x: Array) -> Array:
        hidden, gate = jnp.split(self.inner(x), 2, axis=-1)
        return self.outer(hidden * jax.nn.gelu(gate, approximate=False))


def _at(x: Array, positions: Array | None) -> Array:
    return x if positions is None else x + positions.astype(x.dtype)


class Transformer(nnx.Module):
    """A block between two projections; zero-initialised at its end, so that it starts as x.

    Either `in_frames`, with the text as the second attention's context, or `along_time`. Inside it
    is `inner_dim` wide, as wide as x without that.
    """

    def __init__(
        self,
        dim: int,
        config: UNetConfig,
        rngs: nnx.Rngs,
        *,
        num_heads: int,
        context_dim: int | None = None,
        inner_dim: int | None = None,
        is_over_frames: bool = False,
    ):
        dtype, zeros = DTYPES[config.dtype], nnx.initializers.zeros_init()
        inner = inner_dim or dim
        self.norm = FrameGroupNorm(dim, config.num_groups, EPSILON, is_over_frames)
        self.project_in = Linear(dim, inner, dtype=dtype, rngs=rngs)
        self.block = TransformerBlock(inner, context_dim or inner, num_heads, dtype, rngs)
        self.project_out = Linear(inner, dim, kernel_init=zeros, dtype=dtype, rngs=rngs)
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

    def along_time(self, x: Array, positions: Array | None, layout: Layout) -> Array:
        """Attention over frames, as a change to x.

        Args:
            x: [b, f, h, w, d].
            positions: embedded positions of the frames, [f, d]; None: they have none.
            layout: the devices.

        Returns:
            [b, f, h, w, d].
        """
        height, width = x.shape[2:4]
        tokens = rearrange(self.norm(x), "b f h w d -> b (h w) f d")
        attend = attention_over("time", self.kernel, layout)
        y = self.project_out(self.block.along_time(self.project_in(tokens), positions, attend))
        return x + rearrange(y, "b (h w) f d -> b f h w d", h=height, w=width)
