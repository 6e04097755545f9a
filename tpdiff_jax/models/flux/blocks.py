"""Modules of the Flux transformer: stem, double-stream blocks, single-stream blocks.

A double block keeps separate weights for text and video and joins them in one attention; a single
block sends both through the same weights, attention and feed-forward side by side. Text and video
stay apart as arrays, because patches of the video may be divided over devices.

Source: Black Forest Labs' Flux; Esser et al., arXiv 2403.03206, section 4 (double blocks);
Dehghani et al., arXiv 2302.05442, section 2 (attention and feed-forward in parallel).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.flux.config import FluxConfig
from tpdiff_jax.models.layers.attention import (
    JointAttend,
    RotaryTable,
    SelfAttention,
    joint_attention,
)
from tpdiff_jax.models.layers.basic import (
    ACTIVATIONS,
    DTYPES,
    FeedForward,
    Linear,
    modulated_norm,
    over_tokens,
    zero_linear,
)
from tpdiff_jax.models.layers.embeddings import ScalarEmbedding
from tpdiff_jax.types import Array, Layout

ACTIVATION = "gelu"
XAVIER = nnx.initializers.xavier_uniform()
Tokens = tuple[Array, Array]
"""Text [b, m, d] and video [b, f, l, d]."""


def divided(tokens: Tokens, layout: Layout) -> Tokens:
    """Return the tokens as they lie on the devices between blocks."""
    text, video = tokens
    return layout.constrain(text, "batch"), layout.constrain(video, "batch", None, "tokens")


class FluxStem(nnx.Module):
    """Patches and text to tokens; noise time and pooled text to one vector."""

    def __init__(self, config: FluxConfig, rngs: nnx.Rngs):
        d, dtype = config.hidden_size, DTYPES[config.dtype]
        self.patch = Linear(config.patch_dim, d, dtype=dtype, kernel_init=XAVIER, rngs=rngs)
        self.text = Linear(config.text_dim, d, dtype=dtype, kernel_init=XAVIER, rngs=rngs)
        self.time = ScalarEmbedding(d, rngs)
        self.pooled = FeedForward(config.pooled_dim, d, "silu", jnp.float32, rngs, out_dim=d)

    def condition(self, t: Array, pooled: Array) -> Array:
        """Network time [b] and pooled text [b, p] -> their sum embedded, then SiLU, [b, d]."""
        return jax.nn.silu(self.time(t) + self.pooled(pooled.astype(jnp.float32)))


class Stream(nnx.Module):
    """What one of the two streams of a double block owns."""

    def __init__(self, config: FluxConfig, rngs: nnx.Rngs):
        d, dtype = config.hidden_size, DTYPES[config.dtype]
        self.modulation = zero_linear(d, 6 * d, jnp.float32, rngs)
        self.attention = SelfAttention(d, config.num_heads, True, dtype, rngs)
        self.feed_forward = FeedForward(d, config.feed_forward_dim, ACTIVATION, dtype, rngs)


class DoubleBlock(nnx.Module):
    """Joint attention of text and video, then a feed-forward layer for each."""

    def __init__(self, config: FluxConfig, rngs: nnx.Rngs):
        self.text = Stream(config, rngs)
        self.video = Stream(config, rngs)

    def __call__(
        self,
        tokens: Tokens,
        condition: Array,
        table: RotaryTable,
        attend: JointAttend,
        layout: Layout,
    ) -> Tokens:
        """Tokens, condition [b, d] and the video's rotary table [f, l, e / 2] -> tokens."""
        streams = (self.text, self.video)
        modulations = [jnp.split(s.modulation(condition), 6, axis=-1) for s in streams]
        normed = [
            modulated_norm(x, shift, scale)
            for x, (shift, scale, *_) in zip(tokens, modulations, strict=True)
        ]
        weights = [s.attention for s in streams]
        attended = joint_attention(weights, normed, (None, table), attend)
        text, video = (
            _feed_forward(stream, x, y, modulation[2:])
            for stream, x, y, modulation in zip(streams, tokens, attended, modulations, strict=True)
        )
        return divided((text, video), layout)


def _feed_forward(stream: Stream, x: Array, attended: Array, modulation: list[Array]) -> Array:
    gate_attention, shift, scale, gate = modulation
    x = x + over_tokens(gate_attention, x) * attended
    return x + over_tokens(gate, x) * stream.feed_forward(modulated_norm(x, shift, scale))


class SingleBlock(nnx.Module):
    """x + gate W [attention(y), act(V y)], with y the modulated norm of x."""

    def __init__(self, config: FluxConfig, rngs: nnx.Rngs):
        d, hidden, dtype = config.hidden_size, config.feed_forward_dim, DTYPES[config.dtype]
        self.modulation = zero_linear(d, 3 * d, jnp.float32, rngs)
        self.attention = SelfAttention(d, config.num_heads, True, dtype, rngs, has_output=False)
        self.inner = Linear(d, hidden, dtype=dtype, kernel_init=XAVIER, rngs=rngs)
        self.outer = Linear(d + hidden, d, dtype=dtype, kernel_init=XAVIER, rngs=rngs)

    def __call__(
        self,
        tokens: Tokens,
        condition: Array,
        table: RotaryTable,
        attend: JointAttend,
        layout: Layout,
    ) -> Tokens:
        """Tokens, condition [b, d] and the video's rotary table [f, l, e / 2] -> tokens."""
        shift, scale, gate = jnp.split(self.modulation(condition), 3, axis=-1)
        normed = [modulated_norm(x, shift, scale) for x in tokens]
        attended = joint_attention([self.attention] * 2, normed, (None, table), attend)
        text, video = (
            x + over_tokens(gate, x) * self._mix(y, heads)
            for x, y, heads in zip(tokens, normed, attended, strict=True)
        )
        return divided((text, video), layout)

    def _mix(self, y: Array, attended: Array) -> Array:
        hidden = ACTIVATIONS[ACTIVATION](self.inner(y))
        return self.outer(jnp.concatenate([attended, hidden], axis=-1))
