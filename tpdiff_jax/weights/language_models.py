"""Models of transformers with their tokenizers, from local folders: complete weights or an error.

transformers and torch are imported when a model is opened. Weights are read from safetensors only,
and a tensor that is missing or left over is an error: transformers itself would go on with random
numbers in its place, and without a vocabulary with one of a few special tokens.
"""

import importlib
import importlib.util
import pathlib
from typing import Any, NamedTuple

from tpdiff_jax.checks import first_line_of
from tpdiff_jax.files.json_files import refusing_odd_fields

BUFFERS = ("position_ids",)
"""Left-over tensors that are no weights: older files hold the numbers 0, 1, 2, ... of positions."""

FAST_VOCABULARY, SENTENCEPIECE = "tokenizer.json", "spiece.model"
VOCABULARIES = (FAST_VOCABULARY, SENTENCEPIECE, "vocab.json")
"""Files that hold a tokenizer's words, one of which there must be."""


class OpenModel(NamedTuple):
    """A frozen model in float32.

    Attributes:
        model: on `device`.
        tokenizer: its tokenizer.
        torch: the module.
        device: a GPU where torch has one.
    """

    model: Any
    tokenizer: Any
    torch: Any
    device: str


def open_model(
    kind: str, weights: pathlib.Path, tokenizer: pathlib.Path, *, purpose: str
) -> OpenModel:
    """Read a model and its tokenizer.

    Args:
        kind: name of its class in transformers.
        weights: folder of config.json and safetensors.
        tokenizer: folder of the tokenizer's files.
        purpose: what needs them, for the error about a missing package.

    Raises:
        ValueError: when a package or a file is missing or does not fit.
    """
    transformers, torch = _import("transformers", purpose), _import("torch", purpose)
    _check_vocabulary(tokenizer)
    try:
        with refusing_odd_fields(tokenizer):
            words = transformers.AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
        with refusing_odd_fields(weights):
            model, info = getattr(transformers, kind).from_pretrained(
                weights,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        folders = " and ".join(str(folder) for folder in dict.fromkeys((weights, tokenizer)))
        raise ValueError(f"{folders}: {first_line_of(error)}") from error
    _check_complete(weights, info)
    num_words, num_rows = len(words), model.config.get_text_config().vocab_size
    if num_words > num_rows:
        raise ValueError(
            f"{tokenizer} has {num_words} tokens, the model in {weights} embeds {num_rows}"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return OpenModel(model.eval().requires_grad_(False).to(device), words, torch, device)


def _import(name: str, purpose: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{purpose} needs the package {error.name}: pip install torch transformers"
        ) from error


def _check_vocabulary(folder: pathlib.Path) -> None:
    if not folder.is_dir() or not any((folder / name).is_file() for name in VOCABULARIES):
        raise ValueError(f"{folder} holds no vocabulary ({', '.join(VOCABULARIES)})")
    is_slow = not (folder / FAST_VOCABULARY).is_file() and (folder / SENTENCEPIECE).is_file()
    if is_slow and importlib.util.find_spec("sentencepiece") is None:
        raise ValueError(
            f"{folder / SENTENCEPIECE} needs the package sentencepiece: pip install sentencepiece, "
            f"or put a {FAST_VOCABULARY} beside it"
        )


def _check_complete(weights: pathlib.Path, info: dict[str, Any]) -> None:
    left_over = [key for key in info["unexpected_keys"] if not key.endswith(BUFFERS)]
    faults = (
        ("is missing", sorted(info["missing_keys"])),
        ("is not part of this model", sorted(left_over)),
        ("has another shape", sorted(str(entry) for entry in info["mismatched_keys"])),
    )
    for fault, keys in faults:
        if keys:
            raise ValueError(f"{weights}: tensor {keys[0]!r} {fault} ({len(keys)} such in all)")
