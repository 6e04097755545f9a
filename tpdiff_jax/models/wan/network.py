"""Wan2.1's text-to-video transformer, of any size.

    tokens of the video, [b, f, l, d], attend to each other, all frames at once, then to the text

Video tokens are rotated by the positions of their frame, row and column in the full-rate,
full-size video: row n s of the published table for frame n of a stage of stride s. A frame kept by
several stages of the pyramid therefore looks the same to all of them, and the strides themselves
need no embedding. Nothing learned knows a size.

The text has no mask: prompts are followed by zeros up to a fixed number of tokens, and the network
was trained to see those.

Source: Wan Team, arXiv 2503.20314; diffusers' WanTransformer3DModel, with which the tests compare.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.models.layers.attention import attention_flops
from tpdiff_jax.models.layers.attention_kernels import attention_over, check_kernel
from tpdiff_jax.models.layers.block_stack import apply_stack, bind, new_params, new_stack
from tpdiff_jax.models.layers.config_checks import check_sides
from tpdiff_jax.models.layers.embeddings import scalar_embedding_flops
from tpdiff_jax.models.layers.modulation import NUM_MODULATIONS, TableHead
from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.models.layers.patching import (
    frames_to_patches,
    num_patches,
    patch_positions,
    patches_to_frames,
)
from tpdiff_jax.models.layers.rope import video_table
from tpdiff_jax.models.layers.text_attention import attention_to_text
from tpdiff_jax.models.network import attention_axis_sizes, check_cond, video_shape
from tpdiff_jax.models.wan.axes import WAN_PARAM_AXES
from tpdiff_jax.models.wan.blocks import WanBlock, WanStem
from tpdiff_jax.models.wan.config import WanConfig
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
class Wan:
    """The network as pure functions of {"stem", "blocks", "head"}.

    Leaves under "blocks" have a leading axis of layers.

    Raises:
        ValueError: when `model.attention_kernel` cannot run on the layout's devices.
    """

    config: WanConfig
    layout: Layout = ONE_DEVICE

    def __post_init__(self) -> None:
        check_kernel(self.config.attention_kernel, self.layout.platform, self.config.dtype)

    @property
    def param_axes(self) -> ParamAxes:
        """Logical axes of every parameter, by path."""
        return WAN_PARAM_AXES

    @property
    def cond_shapes(self) -> CondShapes:
        """Encoded text, zero behind the prompt."""
        config = self.config
        return {"text": ((config.num_text_tokens, config.text_dim), np.dtype(np.float16))}

    def axis_sizes(self, shape: Shape) -> Mapping[str, tuple[str, int]]:
        """Heads and the patches of a frame: attention is divided along them."""
        patches = num_patches(shape, self.config.patch_size)
        return attention_axis_sizes(self.config.num_heads, patches)

    def check_shape(self, shape: Shape, strides: Strides) -> None:
        """Raise ValueError naming `model.patch_size` unless it divides the frames' sides."""
        size = self.config.patch_size
        check_sides(shape, strides, size, "patch_size", size)

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32; the output of a fresh network is zero."""
        config = self.config
        key_stem, key_blocks, key_head = jax.random.split(key, 3)
        return {
            "stem": new_params(WanStem, config, key_stem),
            "blocks": new_stack(WanBlock, config, config.depth, key_blocks),
            "head": new_params(TableHead, config, key_head),
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
            cond: {"text": [b, m, d_text]}, zero behind the prompt; other entries are not looked
                at.

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
        stem, head = bind(WanStem, config, params["stem"]), bind(TableHead, config, params["head"])
        embedded, modulations = stem.condition(t)
        patches = patch_positions(positions, size)
        table = video_table(patches, config.rope_dims, config.rope_theta)
        attends = (
            attention_over("video", config.attention_kernel, self.layout),
            attention_to_text(config.attention_kernel, self.layout),
        )
        video = stem.patch(frames_to_patches(x_t, size))  # [b, f, l, d]
        video = self.layout.constrain(video, "batch", None, "tokens")
        text = stem.text(jnp.asarray(cond["text"]))
        seen = (text, modulations, table, attends, self.layout)
        gather = self.layout.gather_layer(self.param_axes, "blocks")
        video = apply_stack(WanBlock, config, params["blocks"], video, *seen, gather=gather)
        return patches_to_frames(head(video, embedded), size, shape[1] // size)

    def flops(self, shape: Shape) -> float:
        """Matrix-product FLOPs of one forward pass over one video of (frames, height, width)."""
        config, d = self.config, self.config.hidden_size
        tokens, num_text = float(self.num_tokens(shape)), config.num_text_tokens
        over_video = attention_flops(tokens, tokens, d)
        to_text = 4.0 * (tokens + num_text) * d**2 + 4.0 * tokens * num_text * d
        feed_forward = 4.0 * tokens * d * config.feed_forward_dim
        ends = 4.0 * tokens * config.patch_dim * d + 2.0 * num_text * (config.text_dim + d) * d
        time = scalar_embedding_flops(d, config.num_time_features) + 2.0 * NUM_MODULATIONS * d**2
        return config.depth * (over_video + to_text + feed_forward) + ends + time

    def num_tokens(self, shape: Shape) -> int:
        """Tokens of one video of (frames, height, width): its patches; text is not among them."""
        return shape[0] * num_patches(shape, self.config.patch_size)

    def null_cond(self, cond: Cond) -> Cond:
        """Text that is all padding, hence zero.

        Published weights know the encoded empty prompt instead, one token and zeros, which the
        data set brings (`experiment/null_condition.py`). None stays None.
        """
        if cond is None:
            return None
        return {**cond, **{name: jnp.zeros_like(cond[name]) for name in self.cond_shapes}}
