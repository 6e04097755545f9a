"""The causal video autoencoder equals an independent one, looks only back, and can be cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.models.causal_video_vae import causal_video_vae_reference as reference
from tests.models.causal_video_vae.causal_video_vae_reference import CONFIG
from tpdiff_jax.models.causal_video_vae.config import CausalVideoVAEConfig
from tpdiff_jax.models.causal_video_vae.network import CausalVideoVAE
from tpdiff_jax.models.causal_video_vae.weights import causal_video_vae_rows
from tpdiff_jax.models.layers.tiling import Tiles
from tpdiff_jax.weights.key_table import import_params, places

VAE = CausalVideoVAE(CONFIG)
SHAPES = jax.eval_shape(VAE.init, jax.random.key(0))
PLACES = places(causal_video_vae_rows(CONFIG), SHAPES)
TENSORS = reference.random_tensors({name: place.shape for name, place in PLACES.items()})
PARAMS = import_params(PLACES, lambda name: TENSORS[name].numpy(), SHAPES)

encode = jax.jit(VAE.encode, static_argnames=("chunk_frames", "tiles"))
decode = jax.jit(VAE.decode, static_argnames=("chunk_latents", "tiles"))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def to_torch(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def from_torch(x):
    return np.moveaxis(x.numpy(), 1, -1)


def relative(result, expected):
    return np.linalg.norm(np.asarray(result) - expected) / np.linalg.norm(expected)


VIDEO, LATENTS = normal(2, 9, 8, 12, 3), normal(2, 3, 2, 3, 3)


def test_encoder_equals_the_reference():
    with torch.no_grad():
        expected = from_torch(reference.encode(TENSORS, to_torch(VIDEO)))
    mean, log_var = encode(PARAMS, VIDEO)
    assert mean.shape == log_var.shape == (2, 3, 2, 3, 3)
    assert relative(np.concatenate([mean, log_var], axis=-1), expected) < 1e-5


def test_decoder_equals_the_reference():
    with torch.no_grad():
        expected = from_torch(reference.decode(TENSORS, to_torch(LATENTS)))
    result = decode(PARAMS, LATENTS)
    assert result.shape == VIDEO.shape
    assert relative(result, expected) < 1e-5


@pytest.mark.parametrize("changed_frame", [1, 4, 5, 8])
def test_a_latent_sees_frames_up_to_its_own(changed_frame):
    """Latent i holds frames 4 i - 3 .. 4 i; latent 0 depends on frame 0 alone."""
    video = VIDEO.copy()
    video[:, changed_frame] += 1.0
    change = np.abs(encode(PARAMS, video)[0] - encode(PARAMS, VIDEO)[0]).max(axis=(0, 2, 3, 4))
    first_to_see = -(-changed_frame // 4)
    np.testing.assert_array_equal(change[:first_to_see], 0.0)
    assert change[first_to_see:].min() > 1e-3


@pytest.mark.parametrize("changed_latent", [1, 2])
def test_a_frame_sees_latents_up_to_its_own(changed_latent):
    latents = LATENTS.copy()
    latents[:, changed_latent] += 1.0
    change = np.abs(decode(PARAMS, latents) - decode(PARAMS, LATENTS)).max(axis=(0, 2, 3, 4))
    first_to_see = 4 * changed_latent - 3
    np.testing.assert_array_equal(change[:first_to_see], 0.0)
    assert change[first_to_see:].min() > 1e-3


def test_a_picture_has_the_code_of_a_videos_first_frame():
    np.testing.assert_allclose(
        encode(PARAMS, VIDEO[:, :1])[0], encode(PARAMS, VIDEO)[0][:, :1], atol=1e-5
    )


def test_encoding_in_chunks_equals_encoding_at_once():
    video = normal(1, 17, 8, 8, 3)
    whole = encode(PARAMS, video)
    for chunk_frames in (4, 8):
        for part, expected in zip(encode(PARAMS, video, chunk_frames), whole, strict=True):
            assert relative(part, expected) < 1e-5


def test_decoding_in_chunks_equals_decoding_at_once():
    latents = normal(1, 5, 2, 2, 3)
    whole = decode(PARAMS, latents)
    for chunk_latents in (1, 2):
        assert relative(decode(PARAMS, latents, chunk_latents), whole) < 1e-5


def test_tiles_see_only_themselves_and_meet_in_their_overlap():
    """Where one tile alone reaches, it gives what it would give by itself."""
    latents = normal(1, 2, 2, 4, 3)
    result = decode(PARAMS, latents, tiles=Tiles(side=3, overlap=2))
    left, right = decode(PARAMS, latents[:, :, :, :3]), decode(PARAMS, latents[:, :, :, 1:])
    np.testing.assert_allclose(result[:, :, :, :4], left[:, :, :, :4], atol=1e-5)
    np.testing.assert_allclose(result[:, :, :, -4:], right[:, :, :, -4:], atol=1e-5)
    between = result[:, :, :, 4:-4]
    bounds = np.stack([left[:, :, :, 4:], right[:, :, :, :-4]])
    assert (between >= bounds.min(axis=0) - 1e-5).all()
    assert (between <= bounds.max(axis=0) + 1e-5).all()


def test_one_tile_is_the_whole_frame():
    tiles = Tiles(side=12, overlap=4)
    for part, expected in zip(
        encode(PARAMS, VIDEO, tiles=tiles), encode(PARAMS, VIDEO), strict=True
    ):
        np.testing.assert_array_equal(part, expected)


def test_the_first_latent_has_its_own_statistics():
    vae = CausalVideoVAE(CausalVideoVAEConfig())
    latents = normal(2, 3, 2, 2, 16)
    result = vae.normalise(jnp.asarray(latents))
    np.testing.assert_allclose(result[:, :1], (latents[:, :1] + 0.04) / 1.8726, rtol=1e-5)
    np.testing.assert_allclose(result[:, 1:], (latents[:, 1:] + 0.2343) / 3.0986, rtol=1e-5)
    np.testing.assert_allclose(vae.denormalise(result), latents, atol=1e-6)


def test_log_variance_is_kept_in_range():
    bias = PARAMS["encoder"]["moments"]["bias"].copy()
    bias[3:] = [100.0, -100.0, 0.0]
    encoder = PARAMS["encoder"] | {"moments": PARAMS["encoder"]["moments"] | {"bias": bias}}
    _, log_var = encode(PARAMS | {"encoder": encoder}, VIDEO)
    np.testing.assert_array_equal(log_var[..., 0], 20.0)
    np.testing.assert_array_equal(log_var[..., 1], -30.0)


@pytest.mark.parametrize("shape", [(1, 8, 8, 8, 3), (1, 9, 6, 8, 3), (1, 9, 8, 10, 3)])
def test_videos_that_do_not_come_out_even_are_refused(shape):
    with pytest.raises(ValueError, match=r"video must be \[b, 1 \+ 4 m, h, w, c\] with sides"):
        VAE.encode(PARAMS, jnp.zeros(shape))


def test_chunks_that_do_not_come_out_even_are_refused():
    video, latents = jnp.zeros((1, 25, 8, 8, 3)), jnp.zeros((1, 7, 2, 2, 3))
    with pytest.raises(ValueError, match="chunk_frames must be a multiple of 4, got 6"):
        VAE.encode(PARAMS, video, 6)
    with pytest.raises(ValueError, match="chunk_frames must be positive and divide 24, got 16"):
        VAE.encode(PARAMS, video, 16)
    with pytest.raises(ValueError, match="tiles must be multiples of 4"):
        VAE.encode(PARAMS, video, tiles=Tiles(side=8, overlap=2))
    with pytest.raises(ValueError, match="chunk_latents must be positive and divide 6, got 4"):
        VAE.decode(PARAMS, latents, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 0}, "vae.channels is 0; allowed: whole numbers from 1"),
        ({"later_scale": -1.0}, "vae.later_scale is -1.0; allowed: above 0"),
        ({"level_channels": ()}, "vae.level_channels must be multiples of vae.num_groups=32"),
        ({"level_channels": (128, 100)}, r"vae.level_channels must be .* got \(128, 100\)"),
        ({"dtype": "float16"}, "vae.dtype is 'float16'; allowed: "),
    ],
)
def test_impossible_shapes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CausalVideoVAEConfig(**fields)
