"""Text encoders: what transformers says, stored as the condition; complete weights or none."""

import importlib.util
import logging
import pathlib

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from safetensors.numpy import load_file, save_file

from experiments.tiny_text_encoders import (
    write_t5_encoder,
    write_text_encoders,
    write_tokenizer,
)
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


def test_open_sora_s_condition_is_t5_s_hidden_states_and_their_mask(tmp_path):
    write_t5_encoder(tmp_path, CAPTIONS, width=16)
    texts = [CAPTIONS[0], "digit", ""]
    arrays = open_text_encoder("t5", tmp_path, 12)(texts)
    tokens = tokens_of(tmp_path / "tokenizer", texts, 12)
    t5 = transformers.T5EncoderModel.from_pretrained(tmp_path / "text_encoder")
    with torch.no_grad():
        hidden = t5(tokens.input_ids, attention_mask=tokens.attention_mask)[0].numpy()
    np.testing.assert_allclose(arrays["text"], hidden, atol=2e-3)
    assert arrays["text_mask"].sum(1).tolist() == [9, 2, 1], "words and the end"
    assert {name: array.dtype for name, array in arrays.items()} == {
        "text": np.float16, "text_mask": np.bool_
    }  # fmt: skip
    assert open_text_encoder("t5", tmp_path)([""])["text"].shape == (1, 120, 16), "of 1.0"


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


def test_more_tokens_than_the_model_has_positions_are_refused_before_the_first_caption(folder):
    with pytest.raises(ValueError, match=r"text_tokens=78: the model in .* has positions for 77"):
        open_text_encoder("clip", folder, 78)
    assert open_text_encoder("clip", folder, 9)(CAPTIONS)["text"].shape == (2, 9, 16)


def test_a_prompt_that_is_too_long_is_cut_without_a_warning_that_it_cannot_be_encoded(
    folder, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    encoder = open_text_encoder("clip", folder)
    assert encoder.is_cut(40 * CAPTIONS[0]) and not encoder.is_cut(CAPTIONS[0])
    assert not [r.message for r in caplog.records if "indexing errors" in r.message]


def write_umt5(folder: pathlib.Path, seed: int = 0) -> None:
    """A small UMT5 laid out as diffusers' Wan pipelines, weights large enough to tell a bias."""
    words = write_tokenizer(folder / "tokenizer", CAPTIONS)
    config = transformers.UMT5Config(
        vocab_size=words, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4
    )
    model = transformers.UMT5EncoderModel(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = "layer_norm" in name
            parameter.copy_(1.0 + 0.1 * noise if is_scale else 0.5 * noise)
    model.save_pretrained(folder / "text_encoder")


@pytest.fixture(scope="module")
def umt5(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("umt5")
    write_umt5(folder)
    return folder


def umt5_tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return load_file(folder / "text_encoder" / "model.safetensors")


def with_umt5_tensors(
    umt5: pathlib.Path, target: pathlib.Path, tensors: dict[str, np.ndarray]
) -> pathlib.Path:
    copy = copy_of(umt5, target)
    save_file(tensors, copy / "text_encoder" / "model.safetensors", {"format": "pt"})
    return copy


def test_wan_s_text_is_umt5_s_with_its_mask_inside_and_zero_behind_the_prompt(umt5):
    texts = [CAPTIONS[0], "digit", ""]
    arrays = open_text_encoder("umt5", umt5, 12)(texts)
    assert set(arrays) == {"text"} and arrays["text"].dtype == np.float16
    tokens = tokens_of(umt5 / "tokenizer", texts, 12)
    model = transformers.UMT5EncoderModel.from_pretrained(umt5 / "text_encoder")
    with torch.no_grad():
        hidden = model(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        without = model(tokens.input_ids)[0]
    mask = tokens.attention_mask[..., None]
    np.testing.assert_allclose(arrays["text"], (hidden * mask).numpy(), atol=4e-3)
    assert float((without * mask - hidden * mask).abs().max()) > 0.1, "the mask is used inside"
    for text, count in zip(arrays["text"], (9, 2, 1), strict=True):  # words and the end
        assert not np.any(text[count:]) and np.all(np.any(text[:count], axis=-1))


def test_wan_s_own_number_of_tokens_is_512(umt5):
    text = open_text_encoder("umt5", umt5)([CAPTIONS[0]])["text"]
    assert text.shape == (1, 512, 16) and not np.any(text[:, 9:])


def test_umt5_has_a_relative_bias_in_every_layer(umt5, tmp_path):
    """T5 has one in its first layer; here the second's counts, and must be there."""
    tensors = umt5_tensors(umt5)
    name = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"
    other = with_umt5_tensors(umt5, tmp_path / "other", tensors | {name: -tensors[name]})
    before, after = (open_text_encoder("umt5", f, 12)(CAPTIONS[:1])["text"] for f in (umt5, other))
    assert np.abs(after - before).max() > 0.05
    rest = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(ValueError, match=rf"tensor '{name}' is missing"):
        open_text_encoder("umt5", with_umt5_tensors(umt5, tmp_path / "rest", rest), 12)


def test_umt5_s_embedding_may_stand_under_either_name_or_both(umt5, tmp_path):
    """Published files have `shared.weight`, `encoder.embed_tokens.weight`, or the same twice."""
    tensors, names = umt5_tensors(umt5), ("shared.weight", "encoder.embed_tokens.weight")
    table = next(tensors[name] for name in names if name in tensors)
    rest = {key: value for key, value in tensors.items() if key not in names}
    expected = open_text_encoder("umt5", umt5, 12)(CAPTIONS)["text"]
    for i, present in enumerate((names[:1], names[1:], names)):
        given = rest | {name: table.copy() for name in present}
        folder = with_umt5_tensors(umt5, tmp_path / str(i), given)
        np.testing.assert_array_equal(
            open_text_encoder("umt5", folder, 12)(CAPTIONS)["text"], expected
        )


@pytest.mark.parametrize("name", ["umt5", "t5_clip"])
def test_a_tokenizer_without_a_vocabulary_is_refused(name, umt5, folder, tmp_path):
    """Else transformers makes one of special tokens alone, and every word unknown."""
    broken = copy_of({"umt5": umt5, "t5_clip": folder}[name], tmp_path)
    (broken / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer holds no vocabulary \(tokenizer.json, spiece"):
        open_text_encoder(name, broken)


@pytest.mark.parametrize("content", ["{}", "[]", "{"])
def test_a_damaged_tokenizer_is_one_line(content, folder, tmp_path):
    broken = copy_of(folder, tmp_path)
    (broken / "tokenizer" / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="tokenizer") as error:
        open_text_encoder("t5_clip", broken)
    assert len(str(error.value).splitlines()) == 1


def test_a_tokenizer_of_more_words_than_the_model_embeds_is_refused(umt5, tmp_path):
    broken = copy_of(umt5, tmp_path)
    write_tokenizer(broken / "tokenizer", [*CAPTIONS, "more words"])
    with pytest.raises(ValueError, match=r"has \d+ tokens, the model in .* embeds \d+"):
        open_text_encoder("umt5", broken)


def test_a_sentencepiece_vocabulary_alone_names_the_package_it_needs(umt5, tmp_path, monkeypatch):
    broken = copy_of(umt5, tmp_path)
    (broken / "tokenizer" / "tokenizer.json").rename(broken / "tokenizer" / "spiece.model")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda n: None if n == "sentencepiece" else find_spec(n)
    )
    with pytest.raises(ValueError, match=r"spiece.model needs the package sentencepiece"):
        open_text_encoder("umt5", broken)


def test_the_words_of_tokenizer_json_decide_the_tokens(tmp_path):
    """A Unigram vocabulary of pieces, as UMT5's: the best split of a word, the end, padding."""
    write_umt5(tmp_path)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("▁dig", -1.0), ("it", -2.0), ("▁", -3.0), ("d", -8.0), ("▁moves", -1.5)]
    words = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    words.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    text = open_text_encoder("umt5", tmp_path, 6)(["digit moves"])["text"]
    model = transformers.UMT5EncoderModel.from_pretrained(tmp_path / "text_encoder")
    ids = torch.tensor([[3, 4, 7, 1]])  # dig it moves </s>, by hand
    with torch.no_grad():
        hidden = model(ids)[0].numpy()
    np.testing.assert_allclose(text[:, :4], hidden, atol=4e-3)
    assert not np.any(text[:, 4:])


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
    assert set(TEXT_ENCODERS) == {"clip", "t5", "t5_clip", "umt5"}


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
