"""The image autoencoder of Stable Diffusion on every frame of a video: 8 x 8 pixels to one latent.

    latents = scale * mean(encoder(frame)),   frame = decoder(latents / scale)

Frames do not see each other, so a video is as many latents as frames. A large frame can run in
tiles, with another result than whole: group norms and the middle's attention then see a tile.

Source: Rombach et al., arXiv 2112.10752, section 3.1; diffusers' AutoencoderKL, with which the
tests compare.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from tpdiff_jax.models.image_vae.config import ImageVAEConfig
from tpdiff_jax.models.layers.attention import SelfAttention
from tpdiff_jax.models.layers.basic import DTYPES, EPSILON, FrameGroupNorm
from tpdiff_jax.models.layers.block_stack import bind, new_params
from tpdiff_jax.models.layers.latent_moments import mean_and_log_var
from tpdiff_jax.models.layers.residual_block import AFTER, ResidualBlock, frame_conv, twice
from tpdiff_jax.models.layers.tiling import Tiles, in_tiles
from tpdiff_jax.types import Array, Params, PRNGKey


class ImageMiddle(nnx.Module):
    """Residual block, attention within each frame, residual block."""

    def __init__(self, channels: int, config: ImageVAEConfig, rngs: nnx.Rngs):
        self.residual_1 = _residual(channels, channels, config, rngs)
        self.norm = FrameGroupNorm(channels, config.num_groups)
        self.attention = SelfAttention(channels, 1, False, DTYPES[config.dtype], rngs)
        self.residual_2 = _residual(channels, channels, config, rngs)

    def __call__(self, x: Array) -> Array:
        """[b, f, h, w, c] -> [b, f, h, w, c]."""
        x = self.residual_1(x)
        tokens = rearrange(self.norm(x), "b f h w c -> b f (h w) c")
        x = x + self.attention(tokens, None).reshape(x.shape)
        return self.residual_2(x)


class Level(nnx.Module):
    """Residual blocks, then half (encoder) or twice (decoder) the sides, except at the last."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        depth: int,
        resampling: str | None,
        config: ImageVAEConfig,
        rngs: nnx.Rngs,
    ):
        widths = [channels] + [out_channels] * depth
        self.residuals = nnx.Dict(
            {str(i): _residual(widths[i], widths[i + 1], config, rngs) for i in range(depth)}
        )
        ends = (out_channels, out_channels, DTYPES[config.dtype], rngs)
        self.downsample = (
            frame_conv(*ends, stride=2, padding=AFTER) if resampling == "down" else None
        )
        self.upsample = frame_conv(*ends) if resampling == "up" else None

    def __call__(self, x: Array) -> Array:
        """[b, f, h, w, c] -> [b, f, h', w', d]."""
        for residual in self.residuals.values():
            x = residual(x)
        if self.downsample is not None:
            return self.downsample(x)
        return x if self.upsample is None else self.upsample(twice(x))


class ImageEncoder(nnx.Module):
    """Pixels to the moments of a latent, mean and log-variance side by side."""

    def __init__(self, config: ImageVAEConfig, rngs: nnx.Rngs):
        widths, z, dtype = config.level_channels, 2 * config.latent_channels, DTYPES[config.dtype]
        self.conv_in = frame_conv(config.channels, widths[0], dtype, rngs)
        self.levels = _levels(widths, config.level_depth, "down", config, rngs)
        self.middle = ImageMiddle(widths[-1], config, rngs)
        self.norm = FrameGroupNorm(widths[-1], config.num_groups)
        self.conv_out = frame_conv(widths[-1], z, dtype, rngs)
        self.moments = nnx.Linear(z, z, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """[b, f, h, w, c] -> [b, f, h', w', 2 z], float32."""
        x = self.conv_in(x)
        for level in self.levels.values():
            x = level(x)
        x = jax.nn.silu(self.norm(self.middle(x)))
        return self.moments(self.conv_out(x)).astype(jnp.float32)


class ImageDecoder(nnx.Module):
    """Latents to pixels; one residual block a level more than the encoder."""

    def __init__(self, config: ImageVAEConfig, rngs: nnx.Rngs):
        widths, z, dtype = config.level_channels[::-1], config.latent_channels, DTYPES[config.dtype]
        self.latents = nnx.Linear(z, z, dtype=dtype, rngs=rngs)
        self.conv_in = frame_conv(z, widths[0], dtype, rngs)
        self.middle = ImageMiddle(widths[0], config, rngs)
        self.levels = _levels(widths, config.level_depth + 1, "up", config, rngs)
        self.norm = FrameGroupNorm(widths[-1], config.num_groups)
        self.conv_out = frame_conv(widths[-1], config.channels, dtype, rngs)

    def __call__(self, z: Array) -> Array:
        """[b, f, h', w', z] -> [b, f, h, w, c], float32."""
        x = self.middle(self.conv_in(self.latents(z)))
        for level in self.levels.values():
            x = level(x)
        return self.conv_out(jax.nn.silu(self.norm(x))).astype(jnp.float32)


@dataclass(frozen=True)
class ImageVAE:
    """The autoencoder as pure functions of a parameter tree {"encoder", "decoder"}."""

    config: ImageVAEConfig

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32."""
        key_encoder, key_decoder = jax.random.split(key)
        return {
            "encoder": new_params(ImageEncoder, self.config, key_encoder),
            "decoder": new_params(ImageDecoder, self.config, key_decoder),
        }

    def encode(
        self,
        params: Params,
        video: Array,
        chunk_frames: int | None = None,
        tiles: Tiles | None = None,
    ) -> tuple[Array, Array]:
        """Return mean and log-variance of the latents.

        Args:
            params: what `init` returns, or a tree of the same shapes.
            video: pixels in [-1, 1], [b, f, h, w, c].
            chunk_frames: frames to hold at once, a divisor of f; None: all of them.
            tiles: in pixels, multiples of the config's `factor`; None: whole frames.

        Returns:
            Mean and log-variance, float32 [b, f, h / factor, w / factor, z] each, before
            `normalise`.

        Raises:
            ValueError: if sides, tiles or chunks do not come out even.
        """
        factor, shape = self.config.factor, video.shape
        if shape[2] % factor or shape[3] % factor:
            raise ValueError(
                f"video must be [b, f, h, w, c] with sides that are multiples of {factor}, "
                f"got {shape}"
            )
        if tiles is not None and (tiles.side % factor or tiles.overlap % factor):
            raise ValueError(f"tiles must be multiples of {factor}, got {tiles}")
        encoder = bind(ImageEncoder, self.config, params["encoder"])
        moments = _in_chunks(encoder, video, chunk_frames, tiles)
        return mean_and_log_var(moments)

    def decode(
        self,
        params: Params,
        latents: Array,
        chunk_latents: int | None = None,
        tiles: Tiles | None = None,
    ) -> Array:
        """Return pixels.

        Args:
            params: what `init` returns, or a tree of the same shapes.
            latents: as `encode` gives them, [b, f, h, w, z].
            chunk_latents: latents to hold at once, a divisor of f; None: all of them.
            tiles: in latents; None: whole frames.

        Returns:
            float32, [b, f, factor h, factor w, c], about [-1, 1].

        Raises:
            ValueError: if the chunks do not come out even.
        """
        decoder = bind(ImageDecoder, self.config, params["decoder"])
        return _in_chunks(decoder, latents, chunk_latents, tiles)

    def normalise(self, latents: Array) -> Array:
        """Bring latents to about unit scale."""
        return latents * self.config.scale

    def denormalise(self, latents: Array) -> Array:
        """Undo `normalise`."""
        return latents / self.config.scale


def _in_chunks(
    apply: Callable[[Array], Array], x: Array, chunk: int | None, tiles: Tiles | None
) -> Array:
    """Run a network of single frames over [b, f, ...], `chunk` frames at a time."""
    if chunk is not None and (chunk < 1 or x.shape[1] % chunk):
        raise ValueError(f"chunks must be positive and divide {x.shape[1]} frames, got {chunk}")

    def run(part: Array) -> Array:
        return apply(part) if tiles is None else in_tiles(apply, part, tiles)

    if chunk is None or chunk == x.shape[1]:
        return run(x)
    parts = rearrange(x, "b (n f) h w c -> n b f h w c", f=chunk)
    return rearrange(jax.lax.map(run, parts), "n b f h w c -> b (n f) h w c")


def _residual(
    channels: int, out_channels: int, config: ImageVAEConfig, rngs: nnx.Rngs
) -> ResidualBlock:
    return ResidualBlock(
        channels,
        out_channels,
        DTYPES[config.dtype],
        rngs,
        num_groups=config.num_groups,
        epsilon=EPSILON,
    )


def _levels(
    widths: tuple[int, ...], depth: int, resampling: str, config: ImageVAEConfig, rngs: nnx.Rngs
) -> nnx.Dict:
    ends, last = zip((widths[0], *widths), widths, strict=False), len(widths) - 1
    levels = {
        str(i): Level(*channels, depth, None if i == last else resampling, config, rngs)
        for i, channels in enumerate(ends)
    }
    return nnx.Dict(levels)
