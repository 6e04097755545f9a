"""Modules of Wan's transformer: stem and blocks; the head is `layers.modulation.TableHead`.

One network turns the noise time into six vectors for all blocks; each block adds a learned table
to them, and the head one to the time's embedding itself. Modulation and residual sums are computed
in float32 whatever the compute type, as in the published networks.

Source: Wan Team, arXiv 2503.20314, section 4.2; Chen et al., PixArt-alpha, arXiv 2310.00426,
section 2.3 (one network for all modulations).
"""

import jax
from flax import nnx

from tpdiff_jax.models.layers.attention import Attend, Attention, RotaryTable
from tpdiff_jax.models.layers.basic import DTYPES, EPSILON, FeedForward, Linear
from tpdiff_jax.models.layers.embeddings import ScalarEmbedding
from tpdiff_jax.models.layers.modulation import (
    NUM_MODULATIONS,
    ModulationTable,
    add_gated,
    modulated,
)
from tpdiff_jax.models.wan.config import WanConfig
from tpdiff_jax.types import Array, Layout

FEED_FORWARD_ACTIVATION = "gelu"


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
        y = modulated(x, shift, scale)
        x = add_gated(x, gate, self.self_attention(y, y, over_video, table))
        x = x + self.cross_attention(self.norm(x), text, to_text)
        shift, scale, gate = of_feed_forward
        x = add_gated(x, gate, self.feed_forward(modulated(x, shift, scale)))
        return layout.constrain(x, "batch", None, "tokens")
