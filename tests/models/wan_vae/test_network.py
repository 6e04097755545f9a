"""Wan's autoencoder equals diffusers' on the same weights, looks only back, and can be cut."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.models.wan_vae.wan_vae_reference import (
    CONFIG,
    from_torch,
    make_reference,
    to_params,
    to_torch,
)
from tpdiff_jax.models.layers.tiling import Tiles
from tpdiff_jax.models.wan_vae.config import WanVAEConfig
from tpdiff_jax.models.wan_vae.layers import ChannelNorm
from tpdiff_jax.models.wan_vae.network import WanVAE

VAE = WanVAE(CONFIG)
encode = jax.jit(VAE.encode, static_argnames=("chunk_frames", "tiles"))
decode = jax.jit(VAE.decode, static_argnames=("chunk_latents", "tiles"))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def relative(result, expected):
    return np.linalg.norm(np.asarray(result) - expected) / np.linalg.norm(expected)


MORE_TILES = ((16, 8), (32, 16), (32, 0))
VIDEO, LATENTS = normal(2, 17, 16, 24, 3), normal(2, 5, 2, 3, 4)


@pytest.fixture(scope="module")
def reference():
    return make_reference()


@pytest.fixture(scope="module")
def params(reference):
    return to_params(dict(reference.named_parameters()))


# ---- diffusers' on the same weights


@pytest.mark.parametrize("num_frames", [1, 5, 9, 13, 17])
def test_chunks_of_four_frames_equal_the_published_encoder_and_decoder(
    reference, params, num_frames
):
    video, latents = VIDEO[:, :num_frames], LATENTS[:, : 1 + (num_frames - 1) // 4]
    with torch.no_grad():
        encoded = reference.encode(to_torch(video)).latent_dist
        decoded = from_torch(reference.decode(to_torch(latents)).sample)
    mean, log_var = encode(params, video, 4)
    assert mean.shape == log_var.shape == latents.shape
    assert relative(mean, from_torch(encoded.mean)) < 1e-5
    assert relative(log_var, from_torch(encoded.logvar)) < 1e-5
    result = decode(params, latents, 1)
    assert result.shape == video.shape
    assert relative(result, decoded) < 1e-5
    assert 0.0 < (np.abs(decoded) == 1.0).mean() < 0.5, "some of it is clipped, most is not"


@pytest.mark.parametrize("chunk_latents", [2, 4, None])
def test_other_chunks_give_the_same(params, chunk_latents):
    chunk_frames = chunk_latents and 4 * chunk_latents
    for part, expected in zip(
        encode(params, VIDEO, chunk_frames), encode(params, VIDEO, 4), strict=True
    ):
        assert relative(part, expected) < 1e-5
    assert relative(decode(params, LATENTS, chunk_latents), decode(params, LATENTS, 1)) < 1e-5


def test_gradients_of_every_parameter_equal_diffusers(reference, params):
    video, latents = VIDEO[:1, :9], LATENTS[:1, :3]
    ends = [normal(1, 3, 2, 3, 8, seed=1), normal(*video.shape, seed=2)]
    model = make_reference()  # gradients stay with the model
    inputs = [to_torch(x).requires_grad_() for x in (video, latents)]
    moments, pixels = model.encode(inputs[0]).latent_dist.parameters, model.decode(inputs[1]).sample
    (moments * to_torch(ends[0])).sum().add((pixels * to_torch(ends[1])).sum()).backward()
    expected = to_params({name: p.grad for name, p in model.named_parameters()})

    def loss(params, video, latents):
        moments = jnp.concatenate(VAE.encode(params, video, 4), axis=-1)
        return jnp.sum(moments * ends[0]) + jnp.sum(VAE.decode(params, latents, 1) * ends[1])

    of_params, *of_inputs = jax.jit(jax.grad(loss, (0, 1, 2)))(params, video, latents)
    for result, wanted in zip(jax.tree.leaves(of_params), jax.tree.leaves(expected), strict=True):
        assert relative(result, wanted) < 1e-4
    for result, wanted in zip(of_inputs, inputs, strict=True):
        assert relative(result, from_torch(wanted.grad)) < 1e-4


@pytest.mark.parametrize(
    ("side", "overlap"),
    [(24, 8), *(pytest.param(*sides, marks=pytest.mark.slow) for sides in MORE_TILES)],
)
def test_tiles_equal_the_published_ones(reference, params, side, overlap):
    """Tiles of every size that the frame's end leaves, and sides that do not."""
    video, latents = normal(1, 5, 56, 40, 3), normal(1, 2, 7, 5, 4)
    reference.enable_tiling(side, side, side - overlap, side - overlap)
    with torch.no_grad():
        encoded = from_torch(reference.encode(to_torch(video)).latent_dist.mean)
        decoded = from_torch(reference.decode(to_torch(latents)).sample)
    reference.use_tiling = False
    mean, _ = encode(params, video, 4, Tiles(side=side, overlap=overlap))
    assert relative(mean, encoded) < 1e-5
    assert relative(encode(params, video, 4)[0], encoded) > 1e-2, "tiles are not the whole frame"
    tiles = Tiles(side=side // 8, overlap=overlap // 8)
    assert relative(decode(params, latents, 1, tiles), decoded) < 1e-5


def test_one_tile_is_the_whole_frame(params):
    tiles = Tiles(side=24, overlap=8)
    np.testing.assert_array_equal(encode(params, VIDEO, 4, tiles)[0], encode(params, VIDEO, 4)[0])


# ---- what follows of looking back only


@pytest.mark.parametrize("changed_frame", [0, 1, 4, 5, 8, 12, 13, 16])
def test_a_latent_sees_frames_up_to_its_own(params, changed_frame):
    """Latent i holds frames 4 i - 3 .. 4 i; latent 0 is a function of frame 0 alone."""
    video = VIDEO.copy()
    video[:, changed_frame] += 1.0
    change = np.abs(encode(params, video)[0] - encode(params, VIDEO)[0]).max(axis=(0, 2, 3, 4))
    first_to_see = -(-changed_frame // 4)
    np.testing.assert_array_equal(change[:first_to_see], 0.0)
    assert change[first_to_see] > 1e-3


@pytest.mark.parametrize("changed_latent", [0, 1, 2, 4])
def test_a_frame_sees_latents_up_to_its_own(params, changed_latent):
    latents = LATENTS.copy()
    latents[:, changed_latent] += 1.0
    change = np.abs(decode(params, latents) - decode(params, LATENTS)).max(axis=(0, 2, 3, 4))
    first_to_see = max(0, 4 * changed_latent - 3)
    np.testing.assert_array_equal(change[:first_to_see], 0.0)
    assert change[first_to_see] > 1e-4


@pytest.mark.parametrize("num_frames", [1, 5, 13])
def test_the_start_of_a_video_has_the_start_of_its_latents(params, num_frames):
    num_latents = 1 + (num_frames - 1) // 4
    short, whole = encode(params, VIDEO[:, :num_frames])[0], encode(params, VIDEO)[0]
    np.testing.assert_allclose(short, whole[:, :num_latents], rtol=1e-4, atol=1e-4)


def test_memory_of_chunks_does_not_grow_with_the_video(params):
    """Beyond the video itself and its latents, which are there whole."""

    def temporary(num_frames, chunk):
        video = jax.ShapeDtypeStruct((1, num_frames, 16, 16, 3), np.float32)
        program = encode.lower(params, video, chunk).compile().memory_analysis()
        return program.temp_size_in_bytes - 2 * np.prod(video.shape) * 4

    assert temporary(65, 4) < 1.05 * temporary(33, 4)
    assert temporary(65, None) > 1.5 * temporary(33, None)


# ---- the small print


def test_the_norm_has_unit_mean_square_and_takes_zeros():
    norm = ChannelNorm(4)
    x = np.float32([[3.0, 0.0, 4.0, 0.0], [3e-9, 0.0, 4e-9, 0.0], [0.0] * 4])
    expected = np.float32([[1.2, 0.0, 1.6, 0.0], [1.2, 0.0, 1.6, 0.0], [0.0] * 4])
    np.testing.assert_allclose(norm(x), expected, rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(norm(x) ** 2))(x)).all()


def test_normalised_latents_have_each_channels_statistics():
    vae = WanVAE(WanVAEConfig())
    latents = normal(2, 3, 2, 2, 16)
    result = vae.normalise(jnp.asarray(latents))
    np.testing.assert_allclose(result[..., 0], (latents[..., 0] + 0.7571) / 2.8184, rtol=1e-5)
    np.testing.assert_allclose(result[..., 15], (latents[..., 15] + 0.2921) / 1.9160, rtol=1e-5)
    np.testing.assert_allclose(vae.denormalise(result), latents, atol=1e-6)


@pytest.mark.parametrize(
    "shape", [(1, 4, 8, 8, 3), (1, 6, 8, 8, 3), (1, 16, 8, 8, 3), (1, 5, 12, 8, 3), (1, 5, 8, 9, 3)]
)
def test_videos_that_do_not_come_out_even_are_refused(params, shape):
    """Diffusers would leave the frames behind the last whole latent out, silently."""
    with pytest.raises(ValueError, match=r"video must be \[b, 1 \+ 4 m, h, w, c\] with sides"):
        VAE.encode(params, jnp.zeros(shape))


def test_parts_that_do_not_come_out_even_are_refused(params):
    video, latents = jnp.zeros((1, 13, 8, 8, 3)), jnp.zeros((1, 4, 1, 1, 4))
    with pytest.raises(ValueError, match="chunk_frames must be a multiple of 4, got 6"):
        VAE.encode(params, video, 6)
    with pytest.raises(ValueError, match="chunk_frames must be positive and divide 12, got 8"):
        VAE.encode(params, video, 8)
    with pytest.raises(ValueError, match="tiles must be multiples of 8"):
        VAE.encode(params, video, tiles=Tiles(side=8, overlap=4))
    with pytest.raises(ValueError, match="chunk_latents must be positive and divide 3, got 2"):
        VAE.decode(params, latents, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latent_channels": 0}, "vae.latent_channels is 0; allowed: whole numbers from 1"),
        ({"level_depth": 0}, "vae.level_depth is 0; allowed: whole numbers from 1"),
        ({"level_channels": ()}, "vae.level_channels must be even and positive"),
        ({"level_channels": (8, 15, 16, 16)}, "vae.level_channels must be even and positive"),
        ({"halves_time": (True,)}, "vae.halves_time must have 3 entries, .* got"),
        ({"latents_mean": (0.0,)}, "vae.latents_mean must have vae.latent_channels=4 entries"),
        ({"latents_std": (1.0,) * 16}, "vae.latents_std must have .*=4 entries, got 16"),
        ({"latents_std": (1.0, 0.0, 1.0, 1.0)}, "vae.latents_std must be above 0"),
        ({"dtype": "float16"}, "vae.dtype is 'float16'; allowed: "),
    ],
)
def test_impossible_shapes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **fields)
