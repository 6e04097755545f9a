"""Modules of Open-Sora's transformers: stem, blocks, layers; the head is `TableHead`.

Every block is attention over its axes, attention to the text and a feed-forward layer. The first
attention and the feed-forward layer are modulated by the noise time as in PixArt; the text is
looked at without a gate or a norm. In the form "stdit" the attention over time comes second in the
same block: it sees the tokens as they are, and its output has the gate of the first.

Source: Zheng et al., Open-Sora, arXiv 2412.20404; Chen et al., PixArt-alpha, arXiv 2310.00426.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.layers.attention import Attend, RotaryTable, SelfAttention
from tpdiff_jax.models.layers.basic import DTYPES, FeedForward, Linear, zero_linear
from tpdiff_jax.models.layers.embeddings import ScalarEmbedding
from tpdiff_jax.models.layers.modulation import (
    NUM_MODULATIONS,
    ModulationTable,
    add_gated,
    modulated,
)
from tpdiff_jax.models.layers.rope import rope_frequencies
from tpdiff_jax.models.open_sora.config import OpenSoraConfig
from tpdiff_jax.types import Array, ArrayLike, Layout, Strides

MLP_ACTIVATION = "gelu"
ROPE_THETA = 10_000.0


class LayerTokens(NamedTuple):
    """What a layer changes.

    Attributes:
        video: [b, f, l, d].
        sinusoids: of the frames, [f, d], for the next attention over time; None where heads are
            turned instead. Behind the first layer they are zero.
    """

    video: Array
    sinusoids: Array | None


class Seen(NamedTuple):
    """What every block sees.

    Attributes:
        text: [b, m, d].
        modulations: of the noise time, [b, 6, d].
        table: rotary cos and sin over time, [f, e / 2]; None: no rotation.
        attends: attention by what it is over: "space", "time", "text".
        layout: the devices.
    """

    text: Array
    modulations: Array
    table: RotaryTable | None
    attends: Mapping[str, Attend]
    layout: Layout


class OpenSoraStem(nnx.Module):
    """Patches and text to tokens; noise time and frame rate to the modulations of all blocks.

    The embedding of no text and the rotary frequencies are in the published files and never
    trained: no gradient reaches them.
    """

    def __init__(self, config: OpenSoraConfig, rngs: nnx.Rngs):
        d, dtype = config.hidden_size, DTYPES[config.dtype]
        xavier = nnx.initializers.xavier_uniform()
        self.patch = Linear(config.patch_dim, d, dtype=dtype, kernel_init=xavier, rngs=rngs)
        self.text = FeedForward(config.text_dim, d, MLP_ACTIVATION, dtype, rngs, out_dim=d)
        no_text_init = nnx.initializers.normal(config.text_dim**-0.5)
        shape = (config.num_text_tokens, config.text_dim)
        self.no_text = nnx.Param(no_text_init(rngs.params(), shape, jnp.float32))
        self.time = ScalarEmbedding(d, rngs)
        self.modulation = Linear(d, NUM_MODULATIONS * d, rngs=rngs)
        self.fps = ScalarEmbedding(d, rngs) if config.is_rotary else None
        if self.fps is not None:  # a fresh network does not look at it
            self.fps.outer = zero_linear(d, d, jnp.dtype(jnp.float32), rngs)
        frequencies = jnp.asarray(rope_frequencies(config.head_dim, ROPE_THETA), jnp.float32)
        self.frequencies = nnx.Param(frequencies) if config.is_rotary else None
        self.clip_fps, self.is_of_stage = config.fps, config.fps_of == "stage"

    def condition(self, t: Array, strides: Strides) -> tuple[Array, Array]:
        """Network time [b] -> its embedding [b, d] and the blocks' modulations [b, 6, d]."""
        embedded = self.time(t)
        if self.fps is not None:
            fps = self.clip_fps / (strides[0] if self.is_of_stage else 1)
            embedded = embedded + self.fps(jnp.full(t.shape, fps, jnp.float32))
        modulations = self.modulation(jax.nn.silu(embedded))
        return embedded, modulations.reshape(len(t), NUM_MODULATIONS, -1)

    def text_tokens(self, text: Array) -> Array:
        """[b, m, d_text] -> [b, m, d]; a text of zeros is replaced by the embedding of no text."""
        is_blank = jnp.all(text == 0, axis=(1, 2), keepdims=True)
        no_text = jax.lax.stop_gradient(self.no_text[...])
        return self.text(jnp.where(is_blank, no_text, text))

    def rotary_table(self, frames: ArrayLike) -> RotaryTable | None:
        """Positions of frames [f] -> cos, sin [f, e / 2]; None where heads are not turned."""
        if self.frequencies is None:
            return None
        frequencies = jax.lax.stop_gradient(self.frequencies[...])
        angles = jnp.asarray(frames, jnp.float32)[:, None] * frequencies
        return jnp.cos(angles), jnp.sin(angles)


class TextAttention(nnx.Module):
    """Multi-head attention to the text; keys and values come from one matrix, side by side."""

    def __init__(self, dim: int, num_heads: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        xavier = nnx.initializers.xavier_uniform()
        self.q = Linear(dim, dim, dtype=dtype, kernel_init=xavier, rngs=rngs)
        self.kv = Linear(dim, 2 * dim, dtype=dtype, kernel_init=xavier, rngs=rngs)
        self.out = zero_linear(dim, dim, dtype, rngs)
        self.num_heads = num_heads

    def __call__(self, x: Array, text: Array, attend: Attend) -> Array:
        """Tokens [..., d], text [b, m, d] -> [..., d]."""
        q, k, v = (
            part.reshape(*part.shape[:-1], self.num_heads, -1)  # [..., n, e]
            for part in (self.q(x), *jnp.split(self.kv(text), 2, axis=-1))
        )
        return self.out(attend(q, k, v).reshape(x.shape))


class OpenSoraBlock(nnx.Module):
    """Attention over one axis of the video or both, attention to the text, a feed-forward layer."""

    def __init__(self, config: OpenSoraConfig, axes: tuple[str, ...], rngs: nnx.Rngs):
        d, n, dtype = config.hidden_size, config.num_heads, DTYPES[config.dtype]
        self.axes = axes
        self.modulation = ModulationTable(NUM_MODULATIONS, d, rngs)
        self.attention = nnx.Dict(
            {axis: SelfAttention(d, n, config.qk_norm, dtype, rngs) for axis in axes}
        )
        self.cross_attention = TextAttention(d, n, dtype, rngs)
        hidden = config.feed_forward_dim
        self.feed_forward = FeedForward(d, hidden, MLP_ACTIVATION, dtype, rngs)
        if "time" in axes:  # a fresh network adds nothing over time
            self.attention["time"].out = zero_linear(d, d, dtype, rngs)
        if axes == ("time",):
            self.feed_forward.outer = zero_linear(hidden, d, dtype, rngs)

    def __call__(self, tokens: LayerTokens, seen: Seen) -> LayerTokens:
        """Change the tokens of a video."""
        x, sinusoids = tokens
        shift, scale, gate, *of_feed_forward = self.modulation(seen.modulations)
        for place, axis in enumerate(self.axes):
            y = modulated(x, shift, scale) if place == 0 else x
            if axis == "time":
                y = y.swapaxes(1, 2)  # [b, l, f, d]
                if sinusoids is not None:
                    y = y + sinusoids.astype(y.dtype)
                    sinusoids = jnp.zeros_like(sinusoids)
            table = seen.table if axis == "time" else None
            y = self.attention[axis](y, table, attend=seen.attends[axis])
            x = add_gated(x, gate, y.swapaxes(1, 2) if axis == "time" else y)
        x = x + self.cross_attention(x, seen.text, seen.attends["text"])
        shift, scale, gate = of_feed_forward
        x = add_gated(x, gate, self.feed_forward(modulated(x, shift, scale)))
        return LayerTokens(seen.layout.constrain(x, "batch", None, "tokens"), sinusoids)


class OpenSoraLayer(nnx.Module):
    """The blocks of a layer, one after the other."""

    def __init__(self, config: OpenSoraConfig, rngs: nnx.Rngs):
        for name, axes in config.blocks.items():
            setattr(self, name, OpenSoraBlock(config, axes, rngs))
        self.names = tuple(config.blocks)

    def __call__(self, tokens: LayerTokens, seen: Seen) -> LayerTokens:
        """Change the tokens of a video."""
        for name in self.names:
            tokens = getattr(self, name)(tokens, seen)
        return tokens
