"""The image autoencoder equals diffusers' on the same weights, read from a published folder."""

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.numpy import load_file, save_file

from tests.models.animatediff.animatediff_reference import randomise
from tpdiff_jax.encoders.video_encoders import open_video_encoder
from tpdiff_jax.models.image_vae.config import ImageVAEConfig
from tpdiff_jax.models.image_vae.network import ImageVAE
from tpdiff_jax.models.image_vae.weights import (
    image_vae_rows,
    load_image_vae,
    read_image_vae_config,
)
from tpdiff_jax.models.layers.tiling import Tiles
from tpdiff_jax.weights.key_table import places

CONFIG = ImageVAEConfig(latent_channels=3, level_channels=(8, 16), level_depth=1, num_groups=4)
VAE = ImageVAE(CONFIG)
FILE = "diffusion_pytorch_model.safetensors"


def make_reference():
    model = AutoencoderKL(
        latent_channels=3, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    randomise(model)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vae")
    make_reference().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def params(folder):
    return load_image_vae(folder, CONFIG)


encode = jax.jit(VAE.encode, static_argnames=("chunk_frames", "tiles"))
decode = jax.jit(VAE.decode, static_argnames=("chunk_latents", "tiles"))


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def frames_first(x):
    return torch.from_numpy(np.moveaxis(x, -1, 2).reshape(-1, x.shape[-1], *x.shape[2:4]))


def relative(result, frames):
    """Distance to the reference's frames [b f, c, h, w]."""
    expected = np.moveaxis(frames.numpy(), 1, -1).reshape(result.shape)
    return np.linalg.norm(np.asarray(result) - expected) / np.linalg.norm(expected)


def test_encoder_equals_diffusers(params):
    video = normal(2, 2, 8, 12, 3)
    with torch.no_grad():
        expected = make_reference().encode(frames_first(video)).latent_dist
    mean, log_var = encode(params, video)
    assert mean.shape == (2, 2, 4, 6, 3)
    assert relative(mean, expected.mean) < 1e-5
    assert relative(log_var, expected.logvar) < 1e-5


def test_decoder_equals_diffusers(params):
    latents = normal(2, 2, 4, 6, 3)
    with torch.no_grad():
        expected = make_reference().decode(frames_first(latents)).sample
    assert relative(decode(params, latents), expected) < 1e-5


def test_tiles_see_only_themselves_and_one_tile_is_the_whole_frame(params):
    """Where one tile alone reaches, it gives what it would give by itself."""
    latents = normal(1, 2, 3, 4, 3)
    result = decode(params, latents, tiles=Tiles(side=3, overlap=2))
    left = decode(params, latents[:, :, :, :3])
    np.testing.assert_allclose(result[:, :, :, :2], left[:, :, :, :2], atol=1e-4)
    whole = decode(params, latents, tiles=Tiles(side=8, overlap=2))
    np.testing.assert_allclose(whole, decode(params, latents), atol=1e-5)


def test_frames_in_chunks_equal_frames_at_once(params):
    video, latents = normal(2, 2, 8, 12, 3), normal(2, 2, 4, 6, 3)
    for part, whole in zip(encode(params, video, 1), encode(params, video), strict=True):
        np.testing.assert_allclose(part, whole, atol=1e-4)
    np.testing.assert_allclose(decode(params, latents, 1), decode(params, latents), atol=1e-4)
    with pytest.raises(ValueError, match="chunks must be positive and divide 3 frames, got 2"):
        VAE.decode(params, np.zeros((1, 3, 4, 4, 3)), 2)


def test_the_shape_is_read_from_the_folder(folder, tmp_path):
    assert read_image_vae_config(folder) == CONFIG
    assert read_image_vae_config(tmp_path) == ImageVAEConfig()
    (tmp_path / "config.json").write_text('{"in_channels": 3, "out_channels": 4}')
    with pytest.raises(ValueError, match="says out_channels=4, elsewhere 3"):
        read_image_vae_config(tmp_path)


def test_latents_have_stable_diffusions_scale():
    np.testing.assert_allclose(VAE.normalise(np.float32([2.0])), [0.3643], rtol=1e-6)
    np.testing.assert_allclose(VAE.denormalise(np.float32([0.3643])), [2.0], rtol=1e-6)


def test_the_full_size_autoencoder_has_the_published_tensors():
    with torch.device("meta"):
        model = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
    config = ImageVAEConfig()
    shapes = jax.eval_shape(ImageVAE(config).init, jax.random.key(0))
    found = places(image_vae_rows(config), shapes)
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert {name: place.shape for name, place in found.items()} == expected
    assert len(found) == 248
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6, 2) == 83.65


def test_older_names_are_read(folder, params, tmp_path):
    old = {}
    for name, tensor in load_file(folder / FILE).items():
        for new_part, old_part in (
            ("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn"),
        ):  # fmt: skip
            name = name.replace(f".{new_part}.", f".{old_part}.")
        old[name] = tensor
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in old
    save_file(old, tmp_path / FILE)
    jax.tree.map(np.testing.assert_array_equal, load_image_vae(tmp_path, CONFIG), params)


def test_a_file_that_does_not_fit_is_refused_by_name(folder, tmp_path):
    tensors = load_file(folder / FILE)
    save_file(tensors | {"other": np.zeros(1, np.float32)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="tensor 'other' is not part of this network"):
        load_image_vae(tmp_path, CONFIG)


def test_sides_and_tiles_that_do_not_come_out_even_are_refused():
    with pytest.raises(ValueError, match=r"sides that are multiples of 2, got \(1, 2, 9, 8, 3\)"):
        VAE.encode({}, np.zeros((1, 2, 9, 8, 3)))
    with pytest.raises(ValueError, match="tiles must be multiples of 2"):
        VAE.encode({}, np.zeros((1, 2, 8, 8, 3)), tiles=Tiles(side=5, overlap=2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 0}, "vae.channels is 0; allowed: whole numbers from 1"),
        ({"scale": -1.0}, "vae.scale is -1.0; allowed: above 0"),
        ({"level_channels": ()}, "vae.level_channels must be multiples of vae.num_groups=32"),
        ({"level_channels": (128, 100)}, r"vae.level_channels must be .* got \(128, 100\)"),
        ({"dtype": "float16"}, "vae.dtype is 'float16'; allowed: "),
    ],
)
def test_impossible_shapes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ImageVAEConfig(**fields)


def test_clips_are_prepared_one_frame_at_a_time_and_come_back(folder, params):
    encoder = open_video_encoder("image_vae", folder)
    encoder.check_clip(num_frames=16, height=8, width=10)
    with pytest.raises(ValueError, match="prepare.width=9 must be a multiple of 2"):
        encoder.check_clip(num_frames=16, height=8, width=9)
    clip = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)
    latents = encoder.encode(clip)
    mean, _ = encode(params, clip[None].astype(np.float32) / 127.5 - 1.0)
    assert latents.dtype == np.float16 and encoder.facts["name"] == "image_vae"
    np.testing.assert_allclose(latents, 0.18215 * mean[0], atol=1e-2)
    decoded = decode(params, latents[None].astype(np.float32) / 0.18215)[0]
    np.testing.assert_allclose(encoder.decode(latents), decoded, atol=1e-3)
