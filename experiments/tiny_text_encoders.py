"""Small text encoders of random weights, laid out like published ones: runs without downloads.

The tokenizer knows the words of the captions it is made from. Weights are random and frozen: a
caption's embedding says which words stand where, and nothing of what they mean.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

SPECIAL = ("<pad>", "</s>", "<unk>")
END = 1


def write_text_encoders(
    folder: pathlib.Path, captions: Sequence[str], *, width: int = 32, seed: int = 0
) -> None:
    """Write what `prepare.text_encoder="t5_clip"` reads: two models, two tokenizers.

    Args:
        folder: made if it is not there.
        captions: texts whose words the tokenizers know.
        width: channels of a token, a multiple of 4.
        seed: of the weights.
    """
    import torch
    import transformers

    words = write_tokenizer(folder / "tokenizer", captions)
    write_tokenizer(folder / "tokenizer_2", captions)
    torch.manual_seed(seed)
    clip = transformers.CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=0,
    )
    transformers.CLIPTextModel(clip).save_pretrained(folder / "text_encoder")
    t5 = transformers.T5Config(**_t5_shape(words, width))
    transformers.T5EncoderModel(t5).save_pretrained(folder / "text_encoder_2")


def write_umt5_encoder(
    folder: pathlib.Path, captions: Sequence[str], *, width: int = 32, seed: int = 0
) -> None:
    """Write what `prepare.text_encoder="umt5"` reads: one model, one tokenizer.

    Args:
        folder: made if it is not there.
        captions: texts whose words the tokenizer knows.
        width: channels of a token, a multiple of 4.
        seed: of the weights.
    """
    import torch
    import transformers

    words = write_tokenizer(folder / "tokenizer", captions)
    torch.manual_seed(seed)
    umt5 = transformers.UMT5Config(**_t5_shape(words, width))
    transformers.UMT5EncoderModel(umt5).save_pretrained(folder / "text_encoder")


def write_t5_encoder(
    folder: pathlib.Path, captions: Sequence[str], *, width: int = 32, seed: int = 0
) -> None:
    """Write what `prepare.text_encoder="t5"` reads: one model, one tokenizer.

    Args:
        folder: made if it is not there.
        captions: texts whose words the tokenizer knows.
        width: channels of a token, a multiple of 4.
        seed: of the weights.
    """
    import torch
    import transformers

    words = write_tokenizer(folder / "tokenizer", captions)
    torch.manual_seed(seed)
    t5 = transformers.T5Config(**_t5_shape(words, width))
    transformers.T5EncoderModel(t5).save_pretrained(folder / "text_encoder")


def _t5_shape(words: int, width: int) -> dict[str, Any]:
    return {
        "vocab_size": words,
        "d_model": width,
        "d_kv": width // 4,
        "d_ff": 2 * width,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "pad_token_id": 0,
        "eos_token_id": END,
    }


def write_tokenizer(folder: pathlib.Path, captions: Sequence[str]) -> int:
    """Write a tokenizer of whole words; return the size of its vocabulary."""
    import tokenizers
    import transformers

    words = sorted({word for caption in captions for word in caption.lower().split()})
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *words))}
    parts: dict[str, Any] = {"unk_token": SPECIAL[2]}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, **parts))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"$A {SPECIAL[END]}", special_tokens=[(SPECIAL[END], END)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[END],
        unk_token=SPECIAL[2],
        model_max_length=77,
    )
    fast.save_pretrained(folder)
    return len(vocabulary)
