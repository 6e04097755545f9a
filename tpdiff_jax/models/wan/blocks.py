"""Modules of Wan's transformer: stem, blocks, head.

One network turns the noise time into six vectors for all blocks; each block adds a learned table
to them, and the head one to the time's embedding itself. Modulation and residual sums are computed
in float32 whatever the compute type, as in the published networks.

Source: Wan Team, arXiv 2503.20314, section 4.2; Chen et al., PixArt-alpha, arXiv 2310.00426,
section 2.3 (one network for all modulations).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.layers.attention import Attend, Attention, RotaryTable
from tpdiff_jax.models.layers.basic import (
    DTYPES,
    EPSILON,
    FeedForward,
    Linear,
    modulated_norm,
    over_tokens,
    zero_linear,
)
from tpdiff_jax.models.layers.embeddings import ScalarEmbedding
from tpdiff_jax.models.wan.config import WanConfig
from tpdiff_jax.types import Array, Layout

FEED_FORWARD_ACTIVATION = "gelu"
NUM_MODULATIONS = 6  # shift, scale and gate of attention, then of the feed-forward layer


class WanStem(nnx.Module):
    """Patches and text to tokens; noise time to its embedding and the modulations of all blocks."""

    def __init__(self, config: WanConfig, rngs: nnx.Rngs):
        d, dtype = config.hidden_size, DTYPES[config.dtype]
        xavier = nnx.initializers.xavier_uniform()
        self.patch = Linear(config.patch_dim, d, dtype=dtype, kernel_init=xavier, rngs=rngs)
        self.text = FeedForward(config.text_dim, d, FEED_FORWARD_ACTIVATION, dtype, rngs, out_dim=d)
        self.time = ScalarEmbedding(d, rngs, config.num_time_features)
        self.modulation = Linear(d, NUM_MODULATIONS * d, rngs=rngs)

    def condition(self, t: Array) -> tuple[Array, Array]:
        """Network time [b] -> its embedding [b, d] and the blocks' modulations [b, 6, d]."""
        embedded = self.time(t)
        modulations = self.modulation(jax.nn.silu(embedded))
        return embedded, modulations.reshape(len(t), NUM_MODULATIONS, -1)


class ModulationTable(nnx.Module):
    """A learned table added to what the noise time says: [b, k or 1, d] -> k arrays [b, d]."""

    def __init__(self, num_rows: int, dim: int, rngs: nnx.Rngs):
        init = nnx.initializers.normal(dim**-0.5)
        self.table = nnx.Param(init(rngs.params(), (num_rows, dim), jnp.float32))

    def __call__(self, of_time: Array) -> list[Array]:
        """Float32 sums, row by row."""
        rows = self.table[...] + of_time
        return [rows[:, i] for i in range(rows.shape[1])]


class WanBlock(nnx.Module):
    """Attention over the whole video, attention to the text, and a feed-forward layer."""

    def __init__(self, config: WanConfig, rngs: nnx.Rngs):
        d, n, dtype = config.hidden_size, config.num_heads, DTYPES[config.dtype]
        self.modulation = ModulationTable(NUM_MODULATIONS, d, rngs)
        self.self_attention, self.cross_attention = (
            Attention(d, d, n, dtype, rngs, use_bias=True, qk_norm=True) for _ in range(2)
        )
        self.norm = nnx.LayerNorm(
            d, epsilon=EPSILON, use_fast_variance=False, dtype=dtype, rngs=rngs
        )
        self.feed_forward = FeedForward(
            d, config.feed_forward_dim, FEED_FORWARD_ACTIVATION, dtype, rngs
        )

    def __call__(
        self,
        x: Array,
        text: Array,
        modulations: Array,
        table: RotaryTable,
        attends: tuple[Attend, Attend],
        layout: Layout,
    ) -> Array:
        """Change the tokens of a video.

        Args:
            x: [b, f, l, d].
            text: [b, m, d].
            modulations: of the noise time, [b, 6, d].
            table: rotary cos and sin, [f, l, e / 2].
            attends: attention over the video, and to the text.
            layout: the devices.

        Returns:
            [b, f, l, d].
        """
        over_video, to_text = attends
        shift, scale, gate, *of_feed_forward = self.modulation(modulations)
        y = _modulated(x, shift, scale)
        x = _add_gated(x, gate, self.self_attention(y, y, over_video, table))
        x = x + self.cross_attention(self.norm(x), text, to_text)
        shift, scale, gate = of_feed_forward
        x = _add_gated(x, gate, self.feed_forward(_modulated(x, shift, scale)))
        return layout.constrain(x, "batch", None, "tokens")


class WanHead(nnx.Module):
    """Modulated norm and a zero-initialised projection back to patches."""

    def __init__(self, config: WanConfig, rngs: nnx.Rngs):
        d = config.hidden_size
        self.modulation = ModulationTable(2, d, rngs)
        self.patch = zero_linear(d, config.patch_dim, DTYPES[config.dtype], rngs)

    def __call__(self, x: Array, embedded: Array) -> Array:
        """[b, f, l, d], embedded time [b, d] -> [b, f, l, p] float32."""
        shift, scale = self.modulation(embedded[:, None])
        return self.patch(_modulated(x, shift, scale)).astype(jnp.float32)


def _modulated(x: Array, shift: Array, scale: Array) -> Array:
    """Return norm(x) (1 + scale) + shift in float32, back in x's type; [b, ..., d] by [b, d]."""
    return modulated_norm(x.astype(jnp.float32), shift, scale).astype(x.dtype)


def _add_gated(x: Array, gate: Array, y: Array) -> Array:
    """Return x + gate y in float32, back in x's type; [b, ..., d] by [b, d]."""
    x_f32 = x.astype(jnp.float32)
    return (x_f32 + over_tokens(gate, x_f32) * y.astype(jnp.float32)).astype(x.dtype)
