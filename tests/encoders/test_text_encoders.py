"""Text encoders: what transformers says, stored as the condition; complete weights or none."""

import pathlib

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from experiments.tiny_text_encoders import write_text_encoders, write_tokenizer
from tpdiff_jax.encoders import TEXT_ENCODERS, open_text_encoder, text_models

CAPTIONS = ["the digit 3 moves fast to the left", "the digit 7 moves slowly to the top"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("text")
    write_text_encoders(folder, CAPTIONS, width=16)
    return folder


def copy_of(folder: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    for path in folder.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return target


def tokens_of(folder: pathlib.Path, texts: list[str], num_tokens: int):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    kwargs = {"padding": "max_length", "max_length": num_tokens, "truncation": True}
    return tokenizer(texts, return_tensors="pt", **kwargs)


def test_miniflux_s_condition_is_t5_s_hidden_states_their_mask_and_clip_s_pooled_vector(folder):
    encoder = open_text_encoder("t5_clip", folder, 12)
    arrays = encoder([*CAPTIONS, ""])
    tokens = tokens_of(folder / "tokenizer_2", [*CAPTIONS, ""], 12)
    t5 = transformers.T5EncoderModel.from_pretrained(folder / "text_encoder_2")
    clip = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder")
    with torch.no_grad():
        hidden = t5(tokens.input_ids, attention_mask=tokens.attention_mask)[0].numpy()
        pooled = clip(**tokens_of(folder / "tokenizer", [*CAPTIONS, ""], 77)).pooler_output.numpy()
    np.testing.assert_allclose(arrays["text"], hidden, atol=2e-3)
    np.testing.assert_allclose(arrays["pooled"], pooled, atol=2e-3)
    assert arrays["text_mask"].sum(1).tolist() == [9, 9, 1], "words and the end"
    assert {name: array.dtype for name, array in arrays.items()} == {
        "text": np.float16, "text_mask": np.bool_, "pooled": np.float16
    }  # fmt: skip
    assert np.abs(arrays["text"][0] - arrays["text"][1]).max() > 0.1


def test_a_prompt_s_bits_do_not_depend_on_the_others(folder):
    encoder = open_text_encoder("t5_clip", folder, 12)
    alone, together = encoder(CAPTIONS[1:]), encoder(CAPTIONS)
    for name, array in alone.items():
        np.testing.assert_array_equal(array[0], together[name][1])


def test_stable_diffusion_s_condition_is_clip_s_last_hidden_states(folder):
    """Its pipelines pass no mask, so what stands in padded places is part of what it knows."""
    arrays = open_text_encoder("clip", folder)(CAPTIONS)
    clip = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder")
    tokens = tokens_of(folder / "tokenizer", CAPTIONS, 77)
    with torch.no_grad():
        hidden = clip(tokens.input_ids).last_hidden_state.numpy()
        masked = clip(**tokens).last_hidden_state.numpy()
    assert np.abs(masked - hidden).max() > 0.01
    assert set(arrays) == {"text"} and arrays["text"].shape == (2, 77, 16)
    np.testing.assert_allclose(arrays["text"], hidden, atol=2e-3)


def test_wan_s_text_is_zero_behind_the_prompt(tmp_path):
    words = write_tokenizer(tmp_path / "tokenizer", CAPTIONS)
    config = transformers.UMT5Config(
        vocab_size=words, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4
    )
    transformers.UMT5EncoderModel(config).save_pretrained(tmp_path / "text_encoder")
    text = open_text_encoder("umt5", tmp_path, 12)(CAPTIONS[:1])["text"]
    assert text.shape == (1, 12, 16)
    assert not np.any(text[:, 9:]) and np.all(np.any(text[:, :9], axis=-1))


def test_published_clip_files_with_their_prefix_and_position_buffer_are_read(folder, tmp_path):
    old = copy_of(folder, tmp_path)
    path = old / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in load_file(path).items()}
    tensors["text_model.embeddings.position_ids"] = np.arange(77)[None]
    save_file(tensors, path, {"format": "pt"})
    new = open_text_encoder("clip", folder)(CAPTIONS)["text"]
    np.testing.assert_array_equal(open_text_encoder("clip", old)(CAPTIONS)["text"], new)


@pytest.mark.parametrize("fault", ["is missing", "is not part of this model"])
def test_weights_that_do_not_fit_are_refused_by_name(folder, tmp_path, fault):
    broken = copy_of(folder, tmp_path)
    path = broken / "text_encoder_2" / "model.safetensors"
    tensors = load_file(path)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    renamed = tensors.pop(name)
    if fault != "is missing":
        tensors |= {name: renamed, "other.weight": renamed}
        name = "other.weight"
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"tensor '{name}' {fault}"):
        open_text_encoder("t5_clip", broken)


def test_a_folder_without_weights_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"text_encoder is no folder"):
        open_text_encoder("clip", tmp_path)
    broken = copy_of(folder, tmp_path)
    (broken / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"text_encoder"):
        open_text_encoder("clip", broken)


def test_an_embedding_beyond_float16_is_refused(folder, monkeypatch):
    encoder = open_text_encoder("clip", folder)
    output = text_models.TextOutput(np.full((1, 77, 16), 1e6, np.float32), np.ones((1, 77)), None)
    monkeypatch.setattr(text_models.TextModel, "__call__", lambda *_: output)
    with pytest.raises(ValueError, match="'text' of prompt 'loud' exceeds float16"):
        encoder(["loud"])


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ValueError, match=r"needs the package transformers: pip install torch"):
        open_text_encoder("clip", folder)


def test_the_identity_knows_weights_and_lengths(folder, tmp_path):
    first, other = open_text_encoder("t5_clip", folder, 12).facts, copy_of(folder, tmp_path)
    assert first == open_text_encoder("t5_clip", other, 12).facts, "not where it lies"
    assert first != open_text_encoder("t5_clip", folder, 13).facts
    vocabulary = other / "tokenizer" / "tokenizer.json"
    vocabulary.write_text(vocabulary.read_text() + " ")
    assert first != open_text_encoder("t5_clip", other, 12).facts
    assert set(TEXT_ENCODERS) == {"clip", "t5_clip", "umt5"}


@pytest.mark.parametrize("name", ["t5_clip", "clip"])
def test_a_prompt_of_more_tokens_than_are_encoded_is_cut_and_said_to_be(folder, name):
    """Eight words and the end."""
    prompt, limit = CAPTIONS[0], 9
    for num_tokens in (limit - 1, limit, limit + 1):
        encoder = open_text_encoder(name, folder, num_tokens)
        assert encoder.is_cut(prompt) == (num_tokens < limit)
        assert not encoder.is_cut("")
        assert encoder([prompt])["text"].shape[1] == num_tokens
    whole = open_text_encoder(name, folder, limit)
    assert whole.is_cut(f"{prompt} fast") and not whole.is_cut(prompt)
