"""The Flux transformer on videos: miniFLUX of Pyramid-Flow, or any other size of it.

    text [b, m, d] and video [b, f, l, d] attend to each other as one sequence
    double blocks (text and video with their own weights), then single blocks (the same for both)

Text tokens stand at position 0 and are not rotated; video tokens are rotated by the position of
their frame in the full-rate video, their row and their column. A frame kept by several stages of
the pyramid therefore looks the same to all of them, and the stride itself needs no embedding.
Nothing sees padded text.

Differs from Pyramid-Flow: one clip at one resolution; its history of coarser clips is not here.

Source: diffusers' FluxTransformer2DModel, with which the tests compare; Pyramid-Flow's miniFLUX,
arXiv 2410.05954, which has the same weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.models.attention import Table, attention_flops
from tpdiff_jax.models.attention_kernels import check_kernel
from tpdiff_jax.models.block_stack import apply_stack, bind, new_params, new_stack
from tpdiff_jax.models.embeddings import scalar_embedding_flops
from tpdiff_jax.models.flux_axes import PARAM_AXES
from tpdiff_jax.models.flux_blocks import DoubleBlock, SingleBlock, Stem, divided
from tpdiff_jax.models.flux_config import FluxConfig
from tpdiff_jax.models.head import Head
from tpdiff_jax.models.network import attention_axis_sizes
from tpdiff_jax.models.one_device import ONE_DEVICE
from tpdiff_jax.models.patching import check_frames, frames_to_patches, patches_to_frames
from tpdiff_jax.models.rope import rope_table, video_angles
from tpdiff_jax.models.text_attention import attention_with_text, num_seen_keys
from tpdiff_jax.types import Array, Cond, CondShapes, Layout, ParamAxes, Params, PRNGKey


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
        return PARAM_AXES

    @property
    def axis_sizes(self) -> Mapping[str, tuple[str, int]]:
        """Heads and the patches of a frame: attention is divided along them."""
        return attention_axis_sizes(self.config.num_heads, self.config.num_places)

    @property
    def cond_shapes(self) -> CondShapes:
        """Encoded text with its mask, and one vector for all of it."""
        config = self.config
        return {
            "text": ((config.num_text_tokens, config.text_dim), np.dtype(np.float16)),
            "text_mask": ((config.num_text_tokens,), np.dtype(np.bool_)),
            "pooled": ((config.pooled_dim,), np.dtype(np.float16)),
        }

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32; the output of a fresh network is zero (adaLN-Zero)."""
        config = self.config
        key_stem, key_double, key_single, key_head = jax.random.split(key, 4)
        return {
            "stem": new_params(Stem, config, key_stem),
            "double_blocks": new_stack(DoubleBlock, config, config.num_double_blocks, key_double),
            "single_blocks": new_stack(SingleBlock, config, config.num_single_blocks, key_single),
            "head": new_params(Head, config, key_head),
        }

    def apply(
        self,
        params: Params,
        x_t: Array,
        t: Array,
        frame_positions: Array | np.ndarray,
        frame_stride: int,
        cond: Cond,
    ) -> Array:
        """Predict the training target of a stage.

        Args:
            params: what `init` returns, or a tree of the same shapes.
            x_t: noisy latents, [b, f, h, w, c].
            t: network time, 0 to 1000, [b].
            frame_positions: positions in the full-rate video, [f].
            frame_stride: not used; the positions carry the rate.
            cond: {"text": [b, m, d_text], "text_mask": [b, m], non-zero for text and zero for
                padding, "pooled": [b, d_pooled]}; other entries are not looked at.

        Returns:
            float32, [b, f, h, w, c].

        Raises:
            ValueError: if frames or condition do not have the shapes of the config.
        """
        del frame_stride
        config = self.config
        self._check_shapes(x_t, cond)
        stem, head = bind(Stem, config, params["stem"]), bind(Head, config, params["head"])
        condition = stem.condition(t, cond["pooled"])
        table = self._rotary_table(frame_positions)
        attend = attention_with_text(
            config.attention_kernel, self.layout, cond["text_mask"], config.is_causal
        )
        video = stem.patch(frames_to_patches(x_t, config.patch_size))  # [b, f, l, d]
        tokens = divided((stem.text(cond["text"]), video), self.layout)
        for block, name in ((DoubleBlock, "double_blocks"), (SingleBlock, "single_blocks")):
            seen = (condition, table, attend, self.layout)
            tokens = apply_stack(block, config, params[name], tokens, *seen)
        output = head(tokens[1], condition)
        return patches_to_frames(output, config.patch_size, config.num_rows)

    def flops(self, num_frames: int) -> float:
        """Matrix-product FLOPs of one forward pass over one video of `num_frames` frames."""
        config, d = self.config, self.config.hidden_size
        tokens, num_text = float(self.num_tokens(num_frames)), config.num_text_tokens
        num_video = tokens - num_text
        keys = num_seen_keys(num_text, num_frames, config.num_places, config.is_causal)
        attention = attention_flops(tokens, keys, d)
        feed_forward = 4.0 * tokens * d * config.feed_forward_dim
        double = attention + feed_forward + 2.0 * d * 12 * d
        single = attention + feed_forward + 2.0 * d * 3 * d
        ends = 4.0 * num_video * config.patch_dim * d + 2.0 * num_text * config.text_dim * d
        vectors = scalar_embedding_flops(d) + 2.0 * (config.pooled_dim + d) * d + 2.0 * d * 2 * d
        return (
            config.num_double_blocks * double + config.num_single_blocks * single + ends + vectors
        )

    def num_tokens(self, num_frames: int) -> int:
        """Tokens of one video of `num_frames` frames: its text and its patches."""
        return self.config.num_text_tokens + num_frames * self.config.num_places

    def null_cond(self, cond: Cond) -> Cond:
        """Text that is all padding, which no video token sees, and a pooled vector of zeros.

        Published weights know the encoded empty prompt instead, which the data set brings
        (`null_condition.py`). None stays None.
        """
        if cond is None:
            return None
        return {**cond, **{name: jnp.zeros_like(cond[name]) for name in self.cond_shapes}}

    def _rotary_table(self, frame_positions: Array | np.ndarray) -> Table:
        """Of the video's tokens, [f, l, e / 2]; text is not rotated."""
        config = self.config
        rows, columns = np.divmod(np.arange(config.num_places), config.num_columns)
        angles = video_angles(frame_positions, rows, columns, config.rope_dims, config.rope_theta)
        shape = (frame_positions.shape[0], config.num_places, -1)
        cos, sin = (part.reshape(shape) for part in rope_table(angles))
        return cos, sin

    def _check_shapes(self, x_t: Array, cond: Cond) -> None:
        config = self.config
        check_frames(x_t, (config.frame_height, config.frame_width, config.channels))
        missing = [name for name in self.cond_shapes if cond is None or name not in cond]
        if missing:
            raise ValueError(f"cond must have {', '.join(self.cond_shapes)}; missing {missing}")
        for name, (shape, _) in self.cond_shapes.items():
            if cond[name].shape != (x_t.shape[0], *shape):
                expected = (x_t.shape[0], *shape)
                raise ValueError(f"cond[{name!r}] must be {expected}, got {cond[name].shape}")
