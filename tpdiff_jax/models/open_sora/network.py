"""Open-Sora's transformers STDiT and STDiT3, of any size.

    tokens [b, f, l, d] attend within their frame, to the same patch of other frames, to the text

Positions are those in the full-rate, full-size video: frame n of a stage of stride s stands at n s,
so that a frame kept by several stages looks the same to all of them. Rows and columns are added to
the patches as sinusoids, stretched so that frames of every size and shape span the same range;
frames are added as sinusoids in the first layer ("stdit") or turn queries and keys of every
attention over time ("stdit3"). Nothing learned knows a size.

The text has a mask. A text of zeros stands for none: the network puts an embedding of its own in
its place, under the mask of the text that was there, as Open-Sora does.

Open-Sora 1.2 predicts data - noise where flow matching here asks for noise - data: the output of
"stdit3" has its sign turned.

Source: Zheng et al., Open-Sora, arXiv 2412.20404; the tags v1.0.0 and v1.2.0 of its code.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.models.layers.attention import attention_flops
from tpdiff_jax.models.layers.attention_kernels import attention_over, check_kernel
from tpdiff_jax.models.layers.block_stack import apply_stack, bind, new_params, new_stack
from tpdiff_jax.models.layers.config_checks import check_sides
from tpdiff_jax.models.layers.embeddings import scalar_embedding_flops, sine_first
from tpdiff_jax.models.layers.modulation import NUM_MODULATIONS, TableHead
from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.models.layers.patching import (
    frames_to_patches,
    num_patches,
    patch_positions,
    patches_to_frames,
)
from tpdiff_jax.models.layers.text_attention import attention_to_text
from tpdiff_jax.models.network import attention_axis_sizes, check_cond, video_shape
from tpdiff_jax.models.open_sora.axes import OPEN_SORA_PARAM_AXES
from tpdiff_jax.models.open_sora.blocks import LayerTokens, OpenSoraLayer, OpenSoraStem, Seen
from tpdiff_jax.models.open_sora.config import OpenSoraConfig
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
class OpenSora:
    """The network as pure functions of {"stem", "blocks", "head"}.

    Leaves under "blocks" have a leading axis of layers.

    Raises:
        ValueError: when `model.attention_kernel` cannot run on the layout's devices.
    """

    config: OpenSoraConfig
    layout: Layout = ONE_DEVICE

    def __post_init__(self) -> None:
        check_kernel(self.config.attention_kernel, self.layout.platform, self.config.dtype)

    @property
    def param_axes(self) -> ParamAxes:
        """Logical axes of every parameter, by path."""
        return OPEN_SORA_PARAM_AXES

    @property
    def cond_shapes(self) -> CondShapes:
        """Encoded text with its mask."""
        config = self.config
        return {
            "text": ((config.num_text_tokens, config.text_dim), np.dtype(np.float16)),
            "text_mask": ((config.num_text_tokens,), np.dtype(np.bool_)),
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
        """Fresh parameters, float32; the output of a fresh network is zero."""
        config = self.config
        key_stem, key_blocks, key_head = jax.random.split(key, 3)
        return {
            "stem": new_params(OpenSoraStem, config, key_stem),
            "blocks": new_stack(OpenSoraLayer, config, config.depth, key_blocks),
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
            strides: of the stage; they say how large the full frames are, and where
                `model.fps_of` is "stage" how many frames a second are left.
            cond: {"text": [b, m, d_text], zero for no text, "text_mask": [b, m], non-zero for text
                and zero for padding}; other entries are not looked at.

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
        stem = bind(OpenSoraStem, config, params["stem"])
        head = bind(TableHead, config, params["head"])
        embedded, modulations = stem.condition(t, strides)
        video = stem.patch(frames_to_patches(x_t, size))  # [b, f, l, d]
        places = patch_sinusoids(config, patch_positions(positions, size), shape, strides)
        video = self.layout.constrain(video + places.astype(video.dtype), "batch", None, "tokens")
        kernel = config.attention_kernel
        seen = Seen(
            text=stem.text_tokens(jnp.asarray(cond["text"])),
            modulations=modulations,
            table=stem.rotary_table(positions.frames),
            attends={
                "space": attention_over("space", kernel, self.layout),
                "time": attention_over("time", kernel, self.layout),
                "text": attention_to_text(kernel, self.layout, cond["text_mask"]),
            },
            layout=self.layout,
        )
        sinusoids = None
        if not config.is_rotary:
            sinusoids = sine_first(positions.frames / config.time_scale, config.hidden_size)
        tokens = LayerTokens(video, sinusoids)
        gather = self.layout.gather_layer(self.param_axes, "blocks")
        blocks = params["blocks"]
        video = apply_stack(OpenSoraLayer, config, blocks, tokens, seen, gather=gather).video
        output = patches_to_frames(head(video, embedded), size, shape[1] // size)
        prediction = output[..., : config.channels]  # the rest is the learned variance
        return -prediction if config.is_rotary else prediction

    def flops(self, shape: Shape) -> float:
        """Matrix-product FLOPs of one forward pass over one video of (frames, height, width)."""
        config, d = self.config, self.config.hidden_size
        tokens, num_text = float(self.num_tokens(shape)), config.num_text_tokens
        keys = {"space": num_patches(shape, config.patch_size), "time": shape[0]}
        to_text = 4.0 * (tokens + num_text) * d**2 + 4.0 * tokens * num_text * d
        feed_forward = 4.0 * tokens * d * config.feed_forward_dim
        layer = sum(
            sum(attention_flops(tokens, keys[axis], d) for axis in axes) + to_text + feed_forward
            for axes in config.blocks.values()
        )
        ends = 2.0 * tokens * (config.patch_dim + config.output_dim) * d
        text = 2.0 * num_text * (config.text_dim + d) * d
        scalars = (2.0 if config.is_rotary else 1.0) * scalar_embedding_flops(d)
        return config.depth * layer + ends + text + scalars + 2.0 * NUM_MODULATIONS * d**2

    def num_tokens(self, shape: Shape) -> int:
        """Tokens of one video of (frames, height, width): its patches; text is not among them."""
        return shape[0] * num_patches(shape, self.config.patch_size)

    def null_cond(self, cond: Cond) -> Cond:
        """Text of zeros under the same mask, for which the network has an embedding of its own."""
        if cond is None:
            return None
        return {**cond, "text": jnp.zeros_like(cond["text"])}


def patch_sinusoids(
    config: OpenSoraConfig, patches: Positions, shape: Shape, strides: Strides
) -> Array:
    """Sinusoids of a patch's position in its frame: of its column, then of its row.

    Frames of R x C patches and H x W latents are stretched to the range of `base_side`:

        row r stands at  r (base_side / sqrt(H W)) round(sqrt(R C)) / R,  columns alike

    Args:
        config: the network's shape.
        patches: row and column of each patch of a frame, [l], in patches of the full frame.
        shape: frames, height and width of the stage.
        strides: of the stage: the full frames are so many times larger.

    Returns:
        float32, [l, d]; from float64 where static.

    Source: Open-Sora 1.2's positions; on square frames 1.0's with space_scale = H / base_side.
    """
    sides = [length * stride for length, stride in zip(shape[1:], strides[1:], strict=True)]
    counts = [side / config.patch_size for side in sides]
    stretch = config.base_side / math.sqrt(math.prod(sides)) * round(math.sqrt(math.prod(counts)))
    rows, columns = patches.rows * (stretch / counts[0]), patches.columns * (stretch / counts[1])
    half = config.hidden_size // 2
    return jnp.concatenate([sine_first(columns, half), sine_first(rows, half)], axis=-1)
