"""Video DiT: a transformer over frame patches, modulated by noise time, label and strides.

A video [b, f, h, w, c] becomes tokens [b, f, l, d], one per patch; blocks of adaLN-Zero attention
and feed-forward layers; a linear head back to patches. Two kinds of attention:

    "joint"       every token sees every token of the video
    "factorised"  tokens of a frame see each other, then tokens of a patch see each other in time

Frames carry their positions in the full-rate video (rotary), so that a frame kept by several
stages of the pyramid looks the same to all of them. Rows and columns of patches are rotary too,
and sinusoids add where a patch stands in the frame: nothing learned knows a size, and one set of
parameters serves every size of clips and every stage. All blocks have the same shape: their
parameters are stacked along a leading axis and scanned.

Source: Peebles and Xie, arXiv 2212.09748; factorised attention as in Latte, arXiv 2401.03048.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from tpdiff_jax.models.layers.attention import SelfAttention, attention_flops
from tpdiff_jax.models.layers.attention_kernels import attention_over, check_kernel
from tpdiff_jax.models.layers.basic import (
    DTYPES,
    FeedForward,
    Linear,
    modulated_norm,
    over_tokens,
    zero_linear,
)
from tpdiff_jax.models.layers.block_stack import apply_stack, bind, new_params, new_stack
from tpdiff_jax.models.layers.config_checks import check_sides
from tpdiff_jax.models.layers.embeddings import (
    LabelEmbedding,
    ScalarEmbedding,
    StrideEmbedding,
    scalar_embedding_flops,
)
from tpdiff_jax.models.layers.head import Head
from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.models.layers.patching import num_patches, patch_positions
from tpdiff_jax.models.layers.rope import axis_angles, rope_table, split_head, video_table
from tpdiff_jax.models.network import attention_axis_sizes, video_shape
from tpdiff_jax.models.video_dit.axes import VIDEO_DIT_PARAM_AXES
from tpdiff_jax.models.video_dit.config import VideoDiTConfig
from tpdiff_jax.models.video_dit.levels import Levels, levels_flops, new_levels
from tpdiff_jax.types import (
    Array,
    ArrayLike,
    Cond,
    CondShapes,
    Layout,
    ParamAxes,
    Params,
    Positions,
    PRNGKey,
    Shape,
    Strides,
)

Tables = Mapping[str, tuple[Array, Array]]
TOKEN_AXES = ("batch", None, "tokens", None)  # of [b, f, l, d]
PATCH_MAX_PERIOD = 10_000.0  # of the sinusoids, in patches


class Block(nnx.Module):
    """Attention over space and time and a feed-forward layer, each x + gate f(modulate(LN x))."""

    def __init__(self, config: VideoDiTConfig, rngs: nnx.Rngs):
        d, dtype = config.hidden_size, DTYPES[config.dtype]
        self.axes, self.kernel = config.attention_axes, config.attention_kernel
        self.num_modulations = 3 * config.num_sublayers
        self.modulation = zero_linear(d, self.num_modulations * d, jnp.float32, rngs)
        self.attention = nnx.Dict(
            {
                axis: SelfAttention(d, config.num_heads, config.qk_norm, dtype, rngs)
                for axis in self.axes
            }
        )
        self.feed_forward = FeedForward(d, config.feed_forward_dim, config.activation, dtype, rngs)

    def __call__(self, x: Array, condition: Array, tables: Tables, layout: Layout) -> Array:
        """[b, f, l, d], activated condition [b, d], rotary tables by axis -> [b, f, l, d]."""
        modulations = jnp.split(self.modulation(condition), self.num_modulations, axis=-1)
        for i, axis in enumerate((*self.axes, None)):
            shift, scale, gate = modulations[3 * i : 3 * i + 3]
            y = modulated_norm(x, shift, scale)
            if axis is None:
                y = self.feed_forward(y)
            else:
                y = self._attend(axis, y, tables[axis], layout)
            x = x + over_tokens(gate, x) * y
        return layout.constrain(x, *TOKEN_AXES)

    def _attend(self, axis: str, x: Array, table: tuple[Array, Array], layout: Layout) -> Array:
        attend = attention_over(axis, self.kernel, layout)
        if axis == "time":
            x = x.swapaxes(1, 2)  # [b, l, f, d]
        x = self.attention[axis](x, table, attend=attend)
        return x.swapaxes(1, 2) if axis == "time" else x


class VideoDiTStem(nnx.Module):
    """Patches to tokens, and everything the blocks are conditioned on to one vector."""

    def __init__(self, config: VideoDiTConfig, rngs: nnx.Rngs):
        d = config.hidden_size
        self.patch = Linear(
            config.patch_dim,
            d,
            dtype=DTYPES[config.dtype],
            kernel_init=nnx.initializers.xavier_uniform(),
            rngs=rngs,
        )
        self.time = ScalarEmbedding(d, rngs)
        self.stride = StrideEmbedding(d, rngs)
        self.label = LabelEmbedding(config.num_classes, d, rngs)

    def tokens(self, patches: Array, sinusoids: Array) -> Array:
        """[b, f, l, p], sinusoids of their positions [l, d] -> [b, f, l, d], compute dtype."""
        tokens = self.patch(patches)
        return tokens + sinusoids.astype(tokens.dtype)

    def condition(self, t: Array, strides: Strides, cond: Cond) -> Array:
        """Embed what the blocks are conditioned on, to one vector: a sum, then SiLU.

        Args:
            t: network time, 0 (data) to 1000 (noise), [b].
            strides: of the stage.
            cond: "label", int32 [b, num_digits]; None: no labels.

        Returns:
            [b, d] float32.
        """
        total = self.time(t) + self.stride(strides)
        if cond is not None:
            total = total + self.label(cond["label"])
        return jax.nn.silu(total)


@dataclass(frozen=True)
class VideoDiT:
    """The network as pure functions of a parameter tree {"stem", "blocks", "head"}.

    Every leaf under "blocks" has a leading axis of `depth`. Convolutional levels, where there are
    any, add their own entries (`new_levels`).

    Raises:
        ValueError: when `model.attention_kernel` cannot run on the layout's devices.
    """

    config: VideoDiTConfig
    layout: Layout = ONE_DEVICE

    def __post_init__(self) -> None:
        check_kernel(self.config.attention_kernel, self.layout.platform, self.config.dtype)

    @property
    def param_axes(self) -> ParamAxes:
        """Logical axes of every parameter, by path."""
        return VIDEO_DIT_PARAM_AXES

    @property
    def cond_shapes(self) -> CondShapes:
        """Nothing encoded; any number of labels."""
        return {}

    def axis_sizes(self, shape: Shape) -> Mapping[str, tuple[str, int]]:
        """Heads and the patches of a frame: attention is divided along them."""
        patches = num_patches(shape, self.config.patch_size)
        return attention_axis_sizes(self.config.num_heads, patches)

    def check_shape(self, shape: Shape, strides: Strides) -> None:
        """Raise ValueError naming `model.patch_size` unless it divides the frames' sides."""
        size = self.config.patch_size
        check_sides(shape, strides, size, "patch_size", size)

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32; the output of a fresh network is zero (adaLN-Zero)."""
        key_stem, key_blocks, key_head = jax.random.split(key, 3)
        return {
            "stem": new_params(VideoDiTStem, self.config, key_stem),
            "blocks": new_stack(Block, self.config, self.config.depth, key_blocks),
            "head": new_params(Head, self.config, key_head),
            **new_levels(self.config, jax.random.fold_in(key, 3)),
        }

    def apply(
        self,
        params: Params,
        x_t: Array,
        t: Array,
        positions: Positions,
        strides: Strides,
        cond: Cond,
    ) -> Array:
        """Predict the training target of a stage.

        Args:
            params: what `init` returns, or a tree of the same shapes.
            x_t: noisy video, [b, f, h, w, c].
            t: network time, 0 to 1000, [b].
            positions: of frames [f], rows [h] and columns [w] in the full-rate, full-size video;
                numpy where static.
            strides: this stage keeps one in so many frames, rows and columns (static).
            cond: {"label": int32 [b, k]} with classes 0 .. num_classes (the last: no label),
                or None for no condition at all.

        Returns:
            float32, [b, f, h, w, c].

        Raises:
            ValueError: if the frames have other channels than the config or cannot be cut into
                patches, or the positions are not as many as frames, rows and columns.
        """
        config, size = self.config, self.config.patch_size
        shape = video_shape(x_t, positions, config.channels)
        self.check_shape(shape, strides)
        stem, head = bind(VideoDiTStem, config, params["stem"]), bind(Head, config, params["head"])
        condition = stem.condition(t, strides, cond)
        patches = patch_positions(positions, size)
        tables = rotary_tables(config, patches)
        sinusoids = position_features(patches.rows, patches.columns, config.hidden_size)
        levels = Levels(config, params, condition, positions.frames, self.layout)
        pixels, kept = levels.down(x_t)
        x = stem.tokens(pixels, sinusoids)  # [b, f, l, d]
        x = self.layout.constrain(x, *TOKEN_AXES)
        seen = (condition, tables, self.layout)
        gather = self.layout.gather_layer(self.param_axes, "blocks")
        x = apply_stack(Block, config, params["blocks"], x, *seen, gather=gather)
        return levels.up(head(x, condition), kept, shape[1] // size)

    def flops(self, shape: Shape) -> float:
        """Matrix-product FLOPs of one forward pass over one video of (frames, height, width)."""
        config, d = self.config, self.config.hidden_size
        patches = num_patches(shape, config.patch_size)
        tokens = float(self.num_tokens(shape))
        keys = {"space": patches, "time": shape[0], "video": tokens}
        block = sum(attention_flops(tokens, keys[axis], d) for axis in config.attention_axes)
        block += 4.0 * tokens * d * config.feed_forward_dim
        block += 2.0 * d * 3 * config.num_sublayers * d
        ends = 4.0 * tokens * config.patch_dim * d + 2.0 * d * 2 * d
        of_levels = levels_flops(config, shape)
        return config.depth * block + ends + of_levels + scalar_embedding_flops(d)

    def num_tokens(self, shape: Shape) -> int:
        """Tokens of one video of (frames, height, width): its patches."""
        return shape[0] * num_patches(shape, self.config.patch_size)

    def null_cond(self, cond: Cond) -> Cond:
        """Replace every label by the null class; None stays None."""
        if cond is None:
            return None
        return {**cond, "label": jnp.full_like(cond["label"], self.config.num_classes)}


def rotary_tables(config: VideoDiTConfig, patches: Positions) -> Tables:
    """Rotary tables of each attention of a block.

    Args:
        config: the network's shape.
        patches: positions of frames [f] and of a frame's patches [l], from `patch_positions`.

    Returns:
        axis -> cos, sin [tokens of that attention, head_dim / 2]; "video" has [f, l, ...].
    """
    theta, head_dim = config.rope_theta, config.head_dim
    if config.attention == "joint":
        return {"video": video_table(patches, split_head(head_dim, 3), theta)}
    dim_row, dim_column = split_head(head_dim, 2)
    in_frame = (
        axis_angles(patches.rows, dim_row, theta),
        axis_angles(patches.columns, dim_column, theta),
    )
    in_time = (axis_angles(patches.frames, head_dim, theta),)
    return {"space": rope_table(in_frame), "time": rope_table(in_time)}


def position_features(rows: ArrayLike, columns: ArrayLike, dim: int) -> Array:
    """Sinusoids of a patch's position in its frame: of its row, then of its column.

    [cos(p w_j), sin(p w_j)] with w_j = 10000^(-j / n), j = 0 .. n - 1, n = dim // 4

    Args:
        rows: row of each patch of a frame, in patches, [l]; numpy where static.
        columns: column of each patch, [l].
        dim: number of features; those beyond 4 n are zero.

    Returns:
        float32, [l, dim]; from float64 where static.

    Source: arXiv 2212.09748, section 3.2 (frequency-based positions of ViT's patches).
    """
    tables = [
        rope_table([axis_angles(p, 2 * (dim // 4), PATCH_MAX_PERIOD)]) for p in (rows, columns)
    ]
    features = jnp.concatenate([part for table in tables for part in table], axis=-1)
    return jnp.pad(features, ((0, 0), (0, dim % 4)))
