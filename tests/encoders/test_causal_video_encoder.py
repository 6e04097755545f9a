"""The causal video autoencoder in preparation: its latents, and back; the shape of its folder."""

import json
import pathlib

import numpy as np
import pytest

from tests.encoders.tiny_autoencoders import CAUSAL_FIELDS, write_causal_video_vae
from tests.models.causal_video_vae.causal_video_vae_reference import CONFIG
from tests.test_prepare import make_spec
from tpdiff_jax.encoders import VIDEO_ENCODERS, make_clip_encoder, open_video_encoder
from tpdiff_jax.models.causal_video_vae.config import CausalVideoVAEConfig
from tpdiff_jax.models.causal_video_vae.network import CausalVideoVAE
from tpdiff_jax.models.causal_video_vae.weights import load_causal_video_vae, read_vae_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_causal_video_vae(tmp_path_factory.mktemp("vae"))


def test_the_folder_s_config_says_the_shape(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert read_vae_config(folder) == CONFIG
    assert read_vae_config(tmp_path) == CausalVideoVAEConfig()
    for change, message in (
        ({"encoder_layers_per_block": [1, 2, 1]}, "equal levels are read"),
        ({"decoder_in_channels": 4}, "decoder_in_channels=4, elsewhere 3"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(CAUSAL_FIELDS | change))
        with pytest.raises(ValueError, match=message):
            read_vae_config(tmp_path)


def test_latents_are_the_whole_clip_s_scaled_mean_and_decode_to_its_frames(
    folder: pathlib.Path,
) -> None:
    encoder = open_video_encoder("causal_video_vae", folder)
    frames = np.random.default_rng(0).integers(0, 256, (9, 8, 12, 3), np.uint8)
    latents = encoder.encode(frames)
    assert latents.shape == (3, 2, 3, 3) and latents.dtype == np.float16
    vae, params = CausalVideoVAE(CONFIG), load_causal_video_vae(folder, CONFIG)
    pixels = frames[None].astype(np.float32) / 127.5 - 1.0
    mean = vae.normalise(vae.encode(params, pixels)[0])[0]  # in one chunk
    np.testing.assert_allclose(latents, mean, atol=2e-3 * np.abs(mean).max())
    decoded = encoder.decode(latents)
    whole = vae.decode(params, vae.denormalise(latents[None].astype(np.float32)))[0]
    assert decoded.shape == frames.shape
    np.testing.assert_allclose(decoded, whole, atol=1e-4 * np.abs(whole).max())


def test_clips_that_have_no_latents_are_refused_by_field(folder: pathlib.Path) -> None:
    encoder = open_video_encoder("causal_video_vae", folder)
    encoder.check_clip(9, 8, 12)
    for clip, field in (((8, 8, 12), "num_frames"), ((9, 6, 12), "height"), ((9, 8, 6), "width")):
        with pytest.raises(ValueError, match=rf"prepare\.{field}"):
            encoder.check_clip(*clip)
    weights = {"video_encoder": "causal_video_vae", "video_weights": str(folder)}
    spec = make_spec(pathlib.Path("videos"), buckets=("9x8x12", "9x6x12"), **weights)
    with pytest.raises(ValueError, match=r"prepare\.buckets, 9x6x12: prepare\.height"):
        make_clip_encoder(spec)


def test_the_identity_is_that_of_the_weights(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    facts = open_video_encoder("causal_video_vae", folder).facts
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert open_video_encoder("causal_video_vae", tmp_path).facts == facts
    (tmp_path / "config.json").write_text(json.dumps(CAUSAL_FIELDS | {"more": 1}))
    assert open_video_encoder("causal_video_vae", tmp_path).facts != facts
    assert "causal_video_vae" in VIDEO_ENCODERS
