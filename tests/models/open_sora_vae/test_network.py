"""Open-Sora 1.2's video autoencoder equals a PyTorch reference, and its files are read."""

import json

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.models.open_sora_vae.open_sora_vae_reference import (
    CONFIG,
    FIELDS,
    OpenSoraVAEReference,
    make_reference,
    write_open_sora_vae,
)
from tpdiff_jax.encoders import FIRST_LATENT_APART, open_video_encoder
from tpdiff_jax.models.layers.tiling import Tiles
from tpdiff_jax.models.open_sora_vae.config import OpenSoraVAEConfig
from tpdiff_jax.models.open_sora_vae.network import OpenSoraVAE
from tpdiff_jax.models.open_sora_vae.weights import (
    load_open_sora_vae,
    open_sora_vae_rows,
    read_open_sora_vae_config,
)
from tpdiff_jax.weights.key_table import places

VAE = OpenSoraVAE(CONFIG)
FILE = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_open_sora_vae(tmp_path_factory.mktemp("vae") / "folder")


@pytest.fixture(scope="module")
def params(folder):
    return load_open_sora_vae(folder, CONFIG)


def frames_of(num_frames):
    generator = np.random.default_rng(0)
    return generator.uniform(-1, 1, (num_frames, 4, 6, 3)).astype(np.float32)


def expected_latents(frames):
    with torch.no_grad():
        latents = make_reference().encode(torch.from_numpy(frames).permute(3, 0, 1, 2))
    return latents.permute(1, 2, 3, 0).numpy()


def relative(result, expected):
    return np.linalg.norm(np.asarray(result) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("num_frames", "num_latents"), [(5, 3), (15, 9)])
def test_encode_and_decode_equal_the_reference(params, num_frames, num_latents):
    """Chunks of five frames: each has one of zeros before it and makes three latents."""
    frames = frames_of(num_frames)
    latents = VAE.normalise(jax.jit(VAE.encode)(params, frames[None])[0])[0]
    expected = expected_latents(frames)
    assert latents.shape == expected.shape == (num_latents, 2, 3, 3)
    assert relative(latents, expected) < 1e-4
    decoded = jax.jit(VAE.decode)(params, VAE.denormalise(expected[None]))[0]
    with torch.no_grad():
        pixels = make_reference().decode(torch.from_numpy(expected).permute(3, 0, 1, 2))
    assert decoded.shape == frames.shape
    assert relative(decoded, pixels.permute(1, 2, 3, 0).numpy()) < 1e-4


def test_chunks_do_not_see_each_other_and_frames_of_one_do(params):
    frames = frames_of(10)
    moved = frames.copy()
    moved[7] += 1.0  # in the middle of the second chunk
    encode = jax.jit(VAE.encode)
    before, after = (np.asarray(encode(params, x[None])[0][0]) for x in (frames, moved))
    change = np.abs(after - before).max(axis=(1, 2, 3))
    assert change[:3].max() < 1e-6 and change[3:].min() > 1e-5


def test_the_full_size_autoencoder_has_the_published_tensors():
    """Shapes only, nothing is allocated; 393.3 million, of which 83.7 are the image part's."""
    config = OpenSoraVAEConfig()
    shapes = jax.eval_shape(OpenSoraVAE(config).init, jax.random.key(0))
    found = {n: place.shape for n, place in places(open_sora_vae_rows(config), shapes).items()}
    with torch.device("meta"):
        model = OpenSoraVAEReference(config)
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert expected.pop("shift") == expected.pop("scale") == (1, 4, 1, 1, 1)
    assert found == expected
    assert found["temporal_vae.encoder.conv_in.conv.weight"] == (128, 4, 3, 3, 3)
    assert found["temporal_vae.encoder.block_res_blocks.3.0.conv3.conv.weight"][:2] == (512, 256)
    assert found["temporal_vae.decoder.conv_blocks.2.conv.weight"] == (1024, 512, 3, 3, 3)
    assert found["spatial_vae.module.encoder.conv_in.weight"] == (128, 3, 3, 3)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 393_341_007
    assert (config.chunk_latents, config.num_missing, config.factor) == (5, 3, 8)


def test_preparation_stores_its_latents_and_decodes_them(folder, params):
    encoder = open_video_encoder("open_sora_vae", folder)
    frames = np.random.default_rng(0).integers(0, 256, (10, 4, 6, 3), np.uint8)
    latents = encoder.encode(frames)
    expected = expected_latents(frames.astype(np.float32) / 127.5 - 1.0)
    assert latents.shape == (6, 2, 3, 3) and latents.dtype == np.float16
    np.testing.assert_allclose(latents, expected, atol=2e-3 * np.abs(expected).max())
    assert encoder.decode(latents).shape == frames.shape
    assert encoder.facts["name"] == "open_sora_vae" in FIRST_LATENT_APART


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ((9, 4, 4), "prepare.num_frames=9 must be a multiple of 5; nearest: 5 or 10$"),
        ((3, 4, 4), "prepare.num_frames=3 must be a multiple of 5; nearest: 5$"),
        ((6, 4, 4), "prepare.num_frames=6 must be a multiple of 5; nearest: 5 or 10$"),
        ((5, 5, 4), "prepare.height=5 must be a multiple of 2; nearest: 4 or 6$"),
    ],
)
def test_clips_that_have_no_latents_are_refused_by_field(folder, clip, message):
    encoder = open_video_encoder("open_sora_vae", folder)
    encoder.check_clip(10, 4, 6)
    with pytest.raises(ValueError, match=message):
        encoder.check_clip(*clip)


def test_lengths_sides_and_tiles_that_do_not_come_out_even_are_refused(params):
    with pytest.raises(ValueError, match=r"video must be \[b, 5 m, h, w, c\], got \(1, 6, 4, 6"):
        VAE.encode(params, np.zeros((1, 6, 4, 6, 3), np.float32))
    with pytest.raises(ValueError, match=r"latents must be \[b, 3 m, h, w, c\], got \(1, 4, 2"):
        VAE.decode(params, np.zeros((1, 4, 2, 3, 3), np.float32))
    with pytest.raises(ValueError, match="sides that are multiples of 2"):
        VAE.encode(params, np.zeros((1, 5, 5, 6, 3), np.float32))
    with pytest.raises(ValueError, match="tiles must be multiples of 2"):
        VAE.encode(params, np.zeros((1, 5, 4, 6, 3), np.float32), tiles=Tiles(side=3, overlap=1))


def test_the_folder_s_config_says_the_shape(folder, tmp_path):
    assert read_open_sora_vae_config(folder) == CONFIG
    assert read_open_sora_vae_config(tmp_path) == OpenSoraVAEConfig()
    published = {  # names of two constructors with their defaults
        "vae_2d": {"type": "VideoAutoencoderKL", "subfolder": "vae", "micro_batch_size": 4},
        "vae_temporal": {"type": "VAE_Temporal_SD", "from_pretrained": None},
        "micro_frame_size": 17,
        "shift": [-0.1, 0.34, 0.27, 0.98],
        "scale": [3.85, 2.32, 2.33, 3.06],
    }
    (tmp_path / "config.json").write_text(json.dumps(published))
    assert read_open_sora_vae_config(tmp_path) == OpenSoraVAEConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shift": [0.0]}, "vae.shift=.* must have one number a channel of the latents, 3"),
        ({"vae_temporal": 3}, "says vae_temporal=3, which is no object"),
        (
            {"vae_temporal": FIELDS["vae_temporal"] | {"filters": 3}},
            "must make levels of multiples",
        ),
        (
            {"vae_temporal": FIELDS["vae_temporal"] | {"temporal_downsample": [True]}},
            "vae.halves_frames=.* must have one entry less than",
        ),
        ({"micro_frame_size": 0}, "vae.chunk_frames is 0; allowed: whole numbers from 1"),
        ({"micro_frame_size": "x"}, "vae.chunk_frames is 'x'; allowed: whole numbers from 1"),
        ({"scale": "abc"}, "vae.scale='abc' must have one number a channel"),
        ({"scale": [1.0, 0.0, 1.0]}, r"vae.scale=\(1.0, 0.0, 1.0\) must be above 0"),
    ],
)
def test_odd_config_files_are_one_line(tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps(FIELDS | change))
    with pytest.raises(ValueError, match=message) as error:
        read_open_sora_vae_config(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("temporal_vae.quant_conv.conv.bias", None, "'{}' is missing"),
        ("spatial_vae.module.quant_conv.bias", None, "'{}' is missing"),
        ("temporal_vae.extra", np.zeros(1, np.float32), "'{}' is not part of this network"),
        ("temporal_vae.quant_conv.conv.bias", np.zeros(7, np.float32), r"has shape \(7,\)"),
        ("scale", np.ones((1, 3, 1, 1, 1), np.float32), r"'scale' is not \[3.0, 2.0, 2.5\]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(folder, tmp_path, name, array, message):
    tensors = load_file(folder / FILE)
    tensors.pop(name, None)
    if array is not None:
        tensors[name] = array
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(ValueError, match=message.format(name)):
        load_open_sora_vae(tmp_path, CONFIG)


def test_older_names_of_the_image_part_are_read(folder, tmp_path, params):
    tensors = {}
    for name, tensor in load_file(folder / FILE).items():
        for new, old in ((".to_q.", ".query."), (".to_out.0.", ".proj_attn.")):
            name = name.replace(new, old)
        tensors[name] = tensor
    save_file(tensors, tmp_path / FILE)
    jax.tree.map(np.testing.assert_array_equal, load_open_sora_vae(tmp_path, CONFIG), params)
