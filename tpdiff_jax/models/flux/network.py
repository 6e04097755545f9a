"""The Flux transformer on videos: miniFLUX of Pyramid-Flow, or any other size of it.

    text [b, m, d] and video [b, f, l, d] attend to each other as one sequence
    double blocks (text and video with their own weights), then single blocks (the same for both)

Text tokens stand at position 0 and are not rotated; video tokens are rotated by the positions of
their frame, row and column in the full-rate, full-size video. A frame kept by several stages of
the pyramid therefore looks the same to all of them, and the strides themselves need no embedding.
Nothing sees padded text. Nothing learned knows a size.

Differs from Pyramid-Flow: one clip at one resolution; its history of coarser clips is not here.

Source: diffusers' FluxTransformer2DModel, with which the tests compare; Pyramid-Flow's miniFLUX,
arXiv 2410.05954, which has the same weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.models.flux.axes import FLUX_PARAM_AXES
from tpdiff_jax.models.flux.blocks import DoubleBlock, FluxStem, SingleBlock, divided
from tpdiff_jax.models.flux.config import FluxConfig
from tpdiff_jax.models.layers.attention import attention_flops
from tpdiff_jax.models.layers.attention_kernels import check_kernel
from tpdiff_jax.models.layers.block_stack import apply_stack, bind, new_params, new_stack
from tpdiff_jax.models.layers.config_checks import check_sides
from tpdiff_jax.models.layers.embeddings import scalar_embedding_flops
from tpdiff_jax.models.layers.head import Head
from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.models.layers.patching import (
    frames_to_patches,
    num_patches,
    patch_positions,
    patches_to_frames,
)
from tpdiff_jax.models.layers.rope import video_table
from tpdiff_jax.models.layers.text_attention import attention_with_text, num_seen_keys
from tpdiff_jax.models.network import attention_axis_sizes, check_cond, video_shape
from tpdiff_jax.types import (
    Array,
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


@dataclass(frozen=True)
class Flux:
    """The network as pure functions of {"stem", "double_blocks", "single_blocks", "head"}.

    Leaves under the two kinds of blocks have a leading axis of layers.

    Raises:
        ValueError: when `model.attention_kernel` cannot run on the layout's devices.
    """

    config: FluxConfig
    layout: Layout = ONE_DEVICE

    def __post_init__(self) -> None:
        check_kernel(self.config.attention_kernel, self.layout.platform, self.config.dtype)

    @property
    def param_axes(self) -> ParamAxes:
        """Logical axes of every parameter, by path."""
        return FLUX_PARAM_AXES

    @property
    def cond_shapes(self) -> CondShapes:
        """Encoded text with its mask, and one vector for all of it."""
        config = self.config
        return {
            "text": ((config.num_text_tokens, config.text_dim), np.dtype(np.float16)),
            "text_mask": ((config.num_text_tokens,), np.dtype(np.bool_)),
            "pooled": ((config.pooled_dim,), np.dtype(np.float16)),
        }

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
        config = self.config
        key_stem, key_double, key_single, key_head = jax.random.split(key, 4)
        return {
            "stem": new_params(FluxStem, config, key_stem),
            "double_blocks": new_stack(DoubleBlock, config, config.num_double_blocks, key_double),
            "single_blocks": new_stack(SingleBlock, config, config.num_single_blocks, key_single),
            "head": new_params(Head, config, key_head),
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
            x_t: noisy latents, [b, f, h, w, c].
            t: network time, 0 to 1000, [b].
            positions: of frames [f], rows [h] and columns [w] in the full-rate, full-size video;
                numpy where static.
            strides: only looked at in errors; the positions carry rate and size.
            cond: {"text": [b, m, d_text], "text_mask": [b, m], non-zero for text and zero for
                padding, "pooled": [b, d_pooled]}; other entries are not looked at.

        Returns:
            float32, [b, f, h, w, c].

        Raises:
            ValueError: if the frames have other channels than the config or cannot be cut into
                patches, the positions are not as many as frames, rows and columns, or the
                condition does not have the shapes of the config.
        """
        config, size = self.config, self.config.patch_size
        shape = video_shape(x_t, positions, config.channels)
        self.check_shape(shape, strides)
        check_cond(self.cond_shapes, cond, x_t.shape[0])
        stem, head = bind(FluxStem, config, params["stem"]), bind(Head, config, params["head"])
        condition = stem.condition(t, cond["pooled"])
        patches = patch_positions(positions, size)
        table = video_table(patches, config.rope_dims, config.rope_theta)  # text is not rotated
        attend = attention_with_text(
            config.attention_kernel, self.layout, cond["text_mask"], config.is_causal
        )
        video = stem.patch(frames_to_patches(x_t, size))  # [b, f, l, d]
        tokens = divided((stem.text(cond["text"]), video), self.layout)
        for block, name in ((DoubleBlock, "double_blocks"), (SingleBlock, "single_blocks")):
            seen = (condition, table, attend, self.layout)
            gather = self.layout.gather_layer(self.param_axes, name)
            tokens = apply_stack(block, config, params[name], tokens, *seen, gather=gather)
        return patches_to_frames(head(tokens[1], condition), size, shape[1] // size)

    def flops(self, shape: Shape) -> float:
        """Matrix-product FLOPs of one forward pass over one video of (frames, height, width)."""
        config, d = self.config, self.config.hidden_size
        tokens, num_text = float(self.num_tokens(shape)), config.num_text_tokens
        num_video = tokens - num_text
        patches = num_patches(shape, config.patch_size)
        keys = num_seen_keys(num_text, shape[0], patches, config.is_causal)
        attention = attention_flops(tokens, keys, d)
        feed_forward = 4.0 * tokens * d * config.feed_forward_dim
        double = attention + feed_forward + 2.0 * d * 12 * d
        single = attention + feed_forward + 2.0 * d * 3 * d
        ends = 4.0 * num_video * config.patch_dim * d + 2.0 * num_text * config.text_dim * d
        vectors = scalar_embedding_flops(d) + 2.0 * (config.pooled_dim + d) * d + 2.0 * d * 2 * d
        return (
            config.num_double_blocks * double + config.num_single_blocks * single + ends + vectors
        )

    def num_tokens(self, shape: Shape) -> int:
        """Tokens of one video of (frames, height, width): its text and its patches."""
        patches = num_patches(shape, self.config.patch_size)
        return self.config.num_text_tokens + shape[0] * patches

    def null_cond(self, cond: Cond) -> Cond:
        """Text that is all padding, which no video token sees, and a pooled vector of zeros.

        Published weights know the encoded empty prompt instead, which the data set brings
        (`experiment/null_condition.py`). None stays None.
        """
        if cond is None:
            return None
        return {**cond, **{name: jnp.zeros_like(cond[name]) for name in self.cond_shapes}}
