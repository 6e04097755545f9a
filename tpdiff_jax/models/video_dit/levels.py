"""Convolutional levels between pixels and tokens, at resolutions that fall by two.

Without levels a patch is one linear layer's, and a network over large patches learns every shape
anew for each place that it can have in a patch. A level is the same everywhere. It computes on its
frames on the way down and again on the way up, where what it had on the way down is added:

    x_t -> fold -> level 0 -> fold -> level 1 -> fold -> tokens -> blocks -> tokens
    prediction <- unfold <- level 0 <- unfold <- level 1 <- unfold <-

A fold makes a square of pixels one pixel with more channels, and a linear layer mixes them. In a
level every pixel attends to itself in the other frames, at their positions in the full-rate video,
and then sees its neighbours, twice.

Source: Hoogeboom et al., simple diffusion, arXiv 2301.11093, section 3.3 (convolutions around a
transformer); attention over time within the levels is not from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from tpdiff_jax.models.layers.attention import RotaryTable, SelfAttention, attention_flops
from tpdiff_jax.models.layers.attention_kernels import attention_over
from tpdiff_jax.models.layers.basic import (
    DTYPES,
    TAPS,
    Linear,
    MatrixConv,
    layer_norm,
    modulated_norm,
    over_tokens,
    zero_linear,
)
from tpdiff_jax.models.layers.block_stack import apply_stack, bind, new_params, new_stack
from tpdiff_jax.models.layers.patching import (
    fold,
    frames_to_patches,
    patches_to_frames,
    unfold,
)
from tpdiff_jax.models.layers.rope import axis_angles, rope_table
from tpdiff_jax.models.video_dit.config import FOLD, VideoDiTConfig
from tpdiff_jax.types import Array, ArrayLike, Layout, Params, PRNGKey, Shape

_NUM_MODULATIONS = 5  # of a block: attention's shift, scale and gate, the convolutions' two


@dataclass(frozen=True)
class LevelShape:
    """A level of a network: its width, the side of what is folded into it, how its blocks run."""

    network: VideoDiTConfig
    index: int

    @property
    def channels(self) -> int:
        """Width of its pixels."""
        return self.network.level_channels[self.index]

    @property
    def fold(self) -> int:
        """Side of the square of finer pixels that is one of its own."""
        return FOLD if self.index else self.side

    @property
    def folded(self) -> int:
        """Values that come into one of its pixels."""
        finer = self.network.level_channels[self.index - 1] if self.index else self.network.channels
        return self.fold**2 * finer

    @property
    def side(self) -> int:
        """Side of its pixels in pixels of the video."""
        return self.network.patch_size // FOLD ** (len(self.network.level_channels) - self.index)

    @property
    def scan_layers(self) -> bool:
        """See `StackConfig`."""
        return self.network.scan_layers

    @property
    def remat(self) -> str:
        """See `StackConfig`."""
        return self.network.remat


class LevelBlock(nnx.Module):
    """Attention over time at every pixel, then two 3x3 convolutions, each x + f(x)."""

    def __init__(self, shape: LevelShape, rngs: nnx.Rngs):
        config, c = shape.network, shape.channels
        dtype = DTYPES[config.dtype]
        self.kernel = config.attention_kernel
        self.modulation = zero_linear(config.hidden_size, _NUM_MODULATIONS * c, jnp.float32, rngs)
        self.attention = SelfAttention(c, 1, config.qk_norm, dtype, rngs)
        self.first = MatrixConv(c, c, dtype, rngs)
        self.second = MatrixConv(c, c, dtype, rngs)

    def __call__(self, x: Array, condition: Array, table: RotaryTable, layout: Layout) -> Array:
        """[b, f, h, w, c], activated condition [b, d], rotary table [f, c / 2] -> like x."""
        modulations = jnp.split(self.modulation(condition), _NUM_MODULATIONS, axis=-1)
        shift, scale, gate = modulations[:3]
        x = x + over_tokens(gate, x) * self._attend(modulated_norm(x, shift, scale), table, layout)
        # Rows divided along one of several mesh axes: XLA makes a kernel's gradient too large.
        x = layout.constrain(x, "batch")
        y = layout.constrain(self.first(jax.nn.silu(layer_norm(x))), "batch")
        y = self.second(jax.nn.silu(modulated_norm(y, *modulations[3:])))
        return layout.constrain(x + y, "batch")

    def _attend(self, x: Array, table: RotaryTable, layout: Layout) -> Array:
        pixels = rearrange(x, "b f h w c -> b (h w) f c")
        attend = attention_over("time", self.kernel, layout, heads=None)
        mixed = self.attention(pixels, table, attend=attend)
        return rearrange(mixed, "b (h w) f c -> b f h w c", h=x.shape[2])


class Folds(nnx.Module):
    """The linear layers into every level and out of it, the last one's output zero at first."""

    def __init__(self, config: VideoDiTConfig, rngs: nnx.Rngs):
        init, dtype = nnx.initializers.xavier_uniform(), DTYPES[config.dtype]
        shapes = levels(config)

        def linear(d_in: int, d_out: int) -> Linear:
            return Linear(d_in, d_out, dtype=dtype, kernel_init=init, rngs=rngs)

        first, *others = shapes
        self.into = nnx.Dict({str(s.index): linear(s.folded, s.channels) for s in shapes})
        self.out = nnx.Dict(
            {"0": zero_linear(first.channels, first.folded, dtype, rngs)}
            | {str(s.index): linear(s.channels, s.folded) for s in others}
        )


def levels(config: VideoDiTConfig) -> list[LevelShape]:
    """Return the levels of a network, the finest first; none where a patch is one layer's."""
    return [LevelShape(config, index) for index in range(len(config.level_channels))]


def new_levels(config: VideoDiTConfig, key: PRNGKey) -> Params:
    """Draw fresh parameters of the levels.

    Args:
        config: of a network.
        key: of the draws.

    Returns:
        {"folds", "down_0", "up_0", "down_1", ...}, with a leading axis of one block in all but the
        first; {} where there are no levels.
    """
    shapes = levels(config)
    if not shapes:
        return {}
    ways = [(way, shape) for shape in shapes for way in ("down", "up")]
    *keys, key_folds = jax.random.split(key, len(ways) + 1)
    stacks = {
        f"{way}_{shape.index}": new_stack(LevelBlock, shape, 1, key_stack)
        for (way, shape), key_stack in zip(ways, keys, strict=True)
    }
    return {"folds": new_params(Folds, config, key_folds), **stacks}


@dataclass(frozen=True)
class Levels:
    """The levels of a network with their parameters, for one call."""

    config: VideoDiTConfig
    params: Params
    condition: Array
    positions: ArrayLike
    layout: Layout

    def down(self, x_t: Array) -> tuple[Array, list[Array]]:
        """Compute the way down.

        Args:
            x_t: video, [b, f, h, w, c].

        Returns:
            Patches of the last level, or of the video, [b, f, l, p]; what each level had.
        """
        x, kept = x_t, []
        for shape in levels(self.config):
            x = self._folds.into[str(shape.index)](fold(x, shape.fold))
            x = self._blocks("down", shape, x)
            kept.append(x)
        return frames_to_patches(x, self._patch_side), kept

    def up(self, patches: Array, kept: Sequence[Array], num_rows: int) -> Array:
        """Compute the way up.

        Args:
            patches: of the last level, or of the video, [b, f, l, p].
            kept: what each level had on the way down.
            num_rows: rows of patches in a frame.

        Returns:
            Prediction, [b, f, h, w, c] float32.
        """
        x = patches_to_frames(patches, self._patch_side, num_rows)
        for shape in reversed(levels(self.config)):
            x = x.astype(kept[shape.index].dtype) + kept[shape.index]
            x = self._blocks("up", shape, x)
            x = unfold(self._folds.out[str(shape.index)](layer_norm(x)), shape.fold)
        return x.astype(jnp.float32)

    @property
    def _patch_side(self) -> int:
        return FOLD if self.config.level_channels else self.config.patch_size

    @cached_property
    def _folds(self) -> Folds:
        return bind(Folds, self.config, self.params["folds"])

    def _blocks(self, way: str, shape: LevelShape, x: Array) -> Array:
        theta = self.config.rope_theta
        table = rope_table((axis_angles(self.positions, shape.channels, theta),))
        seen = (self.condition, table, self.layout)
        stack = self.params[f"{way}_{shape.index}"]
        return apply_stack(LevelBlock, shape, stack, x, *seen)


def levels_flops(config: VideoDiTConfig, shape: Shape) -> float:
    """Count the matrix-product FLOPs of the levels of one video of (frames, height, width)."""
    return sum(_level_flops(level, shape) for level in levels(config))


def _level_flops(level: LevelShape, shape: Shape) -> float:
    c, frames = level.channels, shape[0]
    pixels = float(frames * (shape[1] // level.side) * (shape[2] // level.side))
    block = attention_flops(pixels, frames, c) + 2 * 2.0 * pixels * TAPS * c**2
    block += 2.0 * level.network.hidden_size * _NUM_MODULATIONS * c
    return 2 * block + 2 * 2.0 * pixels * level.folded * c
