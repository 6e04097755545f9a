"""Wan's autoencoder in preparation: its latents, and back; lengths and sides that it refuses."""

import pathlib

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.encoders.tiny_autoencoders import write_causal_video_vae, write_image_vae, write_wan_vae
from tests.models.wan_vae.wan_vae_reference import CONFIG, from_torch, make_reference, to_torch
from tests.test_prepare import make_spec
from tpdiff_jax.encoders import FIRST_LATENT_APART, make_clip_encoder, open_video_encoder

WRITERS = {
    "causal_video_vae": write_causal_video_vae,  # 1 + 4 m frames, a quarter of each side
    "image_vae": write_image_vae,  # any number of frames, half of each side
    "wan_vae": write_wan_vae,  # 1 + 4 m frames, an eighth of each side
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("vae")
    return {name: write(folder / name) for name, write in WRITERS.items()}


def test_latents_and_frames_are_those_of_diffusers(folders: dict[str, pathlib.Path]) -> None:
    encoder, reference = open_video_encoder("wan_vae", folders["wan_vae"]), make_reference()
    frames = np.random.default_rng(0).integers(0, 256, (9, 8, 16, 3), np.uint8)
    pixels = to_torch(frames[None].astype(np.float32) / 127.5 - 1.0)
    with torch.no_grad():
        mean = from_torch(reference.encode(pixels).latent_dist.mean)[0]
    mean_c, std_c = np.float32(CONFIG.latents_mean), np.float32(CONFIG.latents_std)
    expected = (mean - mean_c) / std_c
    latents = encoder.encode(frames)
    assert latents.shape == (3, 1, 2, 4) and latents.dtype == np.float16
    np.testing.assert_allclose(latents, expected, atol=2e-3 * np.abs(expected).max())
    with torch.no_grad():
        stored = latents[None].astype(np.float32) * std_c + mean_c
        decoded = from_torch(reference.decode(to_torch(stored)).sample)[0]
    np.testing.assert_allclose(encoder.decode(latents), decoded, atol=1e-4)
    assert encoder.decode(latents).shape == frames.shape


@pytest.mark.parametrize(
    ("name", "clip", "message"),
    [
        ("wan_vae", (16, 8, 8), "prepare.num_frames=16 must be 1 .* of 4; nearest: 13 or 17$"),
        ("wan_vae", (80, 8, 8), "prepare.num_frames=80 must be 1 .* of 4; nearest: 77 or 81$"),
        ("wan_vae", (2, 8, 8), "prepare.num_frames=2 must be 1 .* of 4; nearest: 1 or 5$"),
        ("wan_vae", (5, 20, 8), "prepare.height=20 must be a multiple of 8; nearest: 16 or 24$"),
        ("wan_vae", (5, 8, 4), "prepare.width=4 must be a multiple of 8; nearest: 8$"),
        ("causal_video_vae", (8, 8, 8), "prepare.num_frames=8 must .*; nearest: 5 or 9$"),
        ("causal_video_vae", (9, 8, 6), "prepare.width=6 must .*; nearest: 4 or 8$"),
        ("image_vae", (3, 7, 8), "prepare.height=7 must .*; nearest: 6 or 8$"),
    ],
)
def test_clips_that_do_not_fit_are_refused_with_the_nearest_that_do(
    folders: dict[str, pathlib.Path], name: str, clip: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_video_encoder(name, folders[name]).check_clip(*clip)
    frames, height, width = clip
    weights = {"video_encoder": name, "video_weights": str(folders[name])}
    shape = {"num_frames": frames, "height": height, "width": width}
    with pytest.raises(ValueError, match=message):
        make_clip_encoder(make_spec(pathlib.Path("videos"), **shape, **weights))
    buckets = ("5x8x8", f"{frames}x{height}x{width}")
    with pytest.raises(ValueError, match=rf"prepare\.buckets, {buckets[1]}: {message}"):
        make_clip_encoder(make_spec(pathlib.Path("videos"), buckets=buckets, **weights))


def test_lengths_and_sides_that_fit_are_taken(folders: dict[str, pathlib.Path]) -> None:
    encoder = open_video_encoder("wan_vae", folders["wan_vae"])
    for clip in ((1, 8, 8), (5, 16, 24), (81, 480, 832)):
        encoder.check_clip(*clip)


def test_the_identity_is_that_of_the_weights_and_the_first_latent_stands_apart(
    folders: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    facts = open_video_encoder("wan_vae", folders["wan_vae"]).facts
    assert facts["name"] == "wan_vae"
    assert open_video_encoder("wan_vae", write_wan_vae(tmp_path / "same")).facts == facts
    assert open_video_encoder("wan_vae", write_wan_vae(tmp_path / "other", seed=1)).facts != facts
    assert "wan_vae" in FIRST_LATENT_APART


@pytest.mark.parametrize("value", [float("nan"), 1e6], ids=["nan", "beyond_float16"])
@pytest.mark.parametrize(
    ("name", "bias"), [("image_vae", "encoder.conv_out.bias"), ("wan_vae", "quant_conv.bias")]
)
def test_latents_that_are_no_numbers_are_an_error_and_not_stored(
    name: str, bias: str, value: float, tmp_path: pathlib.Path
) -> None:
    (file,) = WRITERS[name](tmp_path).glob("*.safetensors")
    tensors = load_file(file)
    save_file(tensors | {bias: np.full_like(tensors[bias], value)}, file)
    encoder = open_video_encoder(name, tmp_path)
    with pytest.raises(ValueError, match=f"{name} makes latents that are NaN or exceed float16"):
        encoder.encode(np.zeros((5, 8, 8, 3), np.uint8))
