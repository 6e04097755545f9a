"""CLIPSIM against transformers' own preprocessing and model, on a small random CLIP."""

import pathlib

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from experiments.tiny_text_encoders import write_tokenizer
from tpdiff_jax.evals.clipsim import ClipScorer, clipsim, folder_sha256, prepare_frame

PROMPTS = ["a red ball rolls left", "a blue cube falls"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("clip")
    words = write_tokenizer(folder, PROMPTS)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "projection_dim": 8}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={"vocab_size": words, "bos_token_id": None, "eos_token_id": 1, **size, **heads},
        vision_config={"image_size": 32, "patch_size": 8, **size, **heads},
        projection_dim=8,
    )
    model = transformers.CLIPModel(config)
    for parameter in model.parameters():  # the start is too small to tell frames apart
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def some_frames(shape: tuple[int, ...] = (3, 40, 56, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_cosines_are_transformers_own(folder):
    frames = some_frames()
    found = ClipScorer(folder).similarities(frames, PROMPTS[0])
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    pixels = processor(images=list(frames), return_tensors="pt").pixel_values
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(PROMPTS[:1], return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens, pixel_values=pixels).logits_per_image[:, 0]
        expected = (logits / model.logit_scale.exp()).numpy()
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(50, 80, 3), (81, 33, 3), (32, 32, 3), (20, 31, 3)])
def test_frames_are_prepared_as_published(shape):
    frame = some_frames(shape)
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    expected = processor(images=[frame], return_tensors="np").pixel_values[0]
    np.testing.assert_allclose(prepare_frame(frame, 32), expected, atol=1e-5)


def test_a_longer_side_of_whole_pixels_loses_none():
    """360 * (224 / 160) is below 504 in floating point."""
    frame = some_frames((160, 360, 3))
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size=224)
    expected = processor(images=[frame], return_tensors="np").pixel_values[0]
    np.testing.assert_allclose(prepare_frame(frame, 224), expected, atol=1e-5)


def test_the_mean_is_over_frames_then_prompts_times_a_hundred():
    clips = np.zeros((2, 4, 8, 8, 3), np.uint8)
    cosines = {"a": np.array([0.1, 0.2, 0.3, 0.4]), "b": np.array([0.5, 0.5, 0.5, 0.5])}
    done = []
    found = clipsim(lambda frames, prompt: cosines[prompt], clips, ["a", "b"], done.append)
    assert found == pytest.approx(100 * (0.25 + 0.5) / 2) and done == [1, 2]
    for prompts in (["a"], ["a", "b", "a"]):
        with pytest.raises(ValueError, match="one for each"):
            clipsim(lambda frames, prompt: cosines[prompt], clips, prompts)


def test_long_prompts_are_cut_off(folder):
    scorer, long = ClipScorer(folder), " ".join(PROMPTS * 40)
    assert np.isfinite(scorer.similarities(some_frames(), long)).all()


def test_incomplete_folders_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="measure.clip_folder='nowhere' is not a folder"):
        ClipScorer(pathlib.Path("nowhere"))
    with pytest.raises(ValueError, match="measure.clip_folder: "):
        ClipScorer(tmp_path)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert ClipScorer(tmp_path).sha256 == ClipScorer(folder).sha256
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert folder_sha256(tmp_path) != folder_sha256(folder)
    with pytest.raises(
        ValueError, match=r"clip_folder: .* tensor 'visual_projection.weight' is missing"
    ):
        ClipScorer(tmp_path)
