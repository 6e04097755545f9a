"""One language model and its tokenizer from local folders, through transformers.

transformers and torch are imported when a model is opened. Weights are read from safetensors only,
and a tensor that is missing or left over is an error: transformers itself would go on with random
numbers in its place.
"""

import importlib
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

BUFFERS = ("position_ids",)
"""Left-over tensors that are no weights: older files hold the numbers 0, 1, 2, ... of positions."""

SEEING_PADDING = ("CLIPTextModel",)
"""Models that published pipelines run without a mask: a padded place sees the padding before it."""


class TextOutput(NamedTuple):
    """What a model says of n prompts.

    Attributes:
        hidden: of the last layer, after its norm, float32 [n, l, d].
        mask: True for tokens of the prompt, False for padding, [n, l].
        pooled: one vector a prompt, float32 [n, d]; None for models without one.
    """

    hidden: np.ndarray
    mask: np.ndarray
    pooled: np.ndarray | None


class TextModel:
    """A frozen text encoder in float32, on a GPU where torch has one."""

    def __init__(
        self, kind: str, weights: pathlib.Path, tokenizer: pathlib.Path, num_tokens: int
    ) -> None:
        """Read the model.

        Args:
            kind: name of its class in transformers.
            weights: folder of config.json and safetensors.
            tokenizer: folder of the tokenizer's files.
            num_tokens: prompts are padded or cut to it.

        Raises:
            ValueError: when a package or a file is missing or does not fit.
        """
        transformers, self._torch = _import("transformers"), _import("torch")
        self._num_tokens = num_tokens
        self._sees_padding = kind in SEEING_PADDING
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                tokenizer, local_files_only=True
            )
            model, info = getattr(transformers, kind).from_pretrained(
                weights,
                local_files_only=True,
                use_safetensors=True,
                dtype=self._torch.float32,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"{weights} and {tokenizer}: {error}") from error
        _check_complete(weights, info)
        self._model = model.requires_grad_(False).to(self._device)

    def __call__(self, prompts: Sequence[str]) -> TextOutput:
        """Encode prompts."""
        tokens = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self._num_tokens,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self._device)
        with self._torch.inference_mode():
            shown = None if self._sees_padding else tokens.attention_mask
            output = self._model(tokens.input_ids, attention_mask=shown)
        pooled = getattr(output, "pooler_output", None)
        return TextOutput(
            hidden=output.last_hidden_state.cpu().numpy(),
            mask=tokens.attention_mask.cpu().numpy() != 0,
            pooled=None if pooled is None else pooled.cpu().numpy(),
        )


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"encoding prompts needs the package {error.name}: pip install torch transformers"
        ) from error


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
