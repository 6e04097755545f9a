"""The small autoencoder learns, and its folder opens as a published one does."""

import pathlib

import numpy as np

from experiments import tiny_image_vae
from experiments.tiny_image_vae import write_image_vae
from tpdiff_jax.data import MovingDigitsSpec
from tpdiff_jax.encoders import open_video_encoder
from tpdiff_jax.files.media import to_uint8
from tpdiff_jax.models.image_vae.weights import read_image_vae_config


def test_latents_have_unit_scale_and_decode_to_something_like_the_frames(
    tmp_path: pathlib.Path,
) -> None:
    frames = MovingDigitsSpec(frame_size=16).clip("train", 0, 0)["video"].repeat(3, axis=-1)
    write_image_vae(tmp_path, frames, num_steps=12)
    config = read_image_vae_config(tmp_path)
    assert config.scale != tiny_image_vae.CONFIG.scale
    encoder = open_video_encoder("image_vae", tmp_path)
    latents = encoder.encode(to_uint8(frames))
    assert latents.shape == (16, 4, 4, config.latent_channels)
    np.testing.assert_allclose(np.mean(latents.astype(np.float32) ** 2), 1.0, rtol=0.02)
    error = np.mean((encoder.decode(latents) - frames) ** 2)
    assert error < 0.5 * np.mean(frames**2), "black frames are not learnt from nothing"
