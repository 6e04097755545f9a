"""One text encoder and its tokenizer: prompts to hidden states."""

import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tpdiff_jax.weights.language_models import open_model

SEEING_PADDING = ("CLIPTextModel",)
"""Models that published pipelines run without a mask: a padded place sees the padding before it."""


def free_device_memory() -> None:
    """Give back what torch keeps of a GPU's memory once its models are gone; jax needs it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


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
            ValueError: when a package or a file is missing or does not fit, or the model has fewer
                positions than `num_tokens`.
        """
        self._num_tokens = num_tokens
        self._sees_padding = kind in SEEING_PADDING
        self._opened = open_model(kind, weights, tokenizer, purpose="encoding prompts")
        config = self._opened.model.config.get_text_config()
        most = getattr(config, "max_position_embeddings", num_tokens)  # T5 knows no last position
        if num_tokens > most:
            raise ValueError(
                f"text_tokens={num_tokens}: the model in {weights} has positions for {most}"
            )

    def __call__(self, prompts: Sequence[str]) -> TextOutput:
        """Encode prompts."""
        model, tokenizer, torch, device = self._opened
        tokens = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self._num_tokens,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            shown = None if self._sees_padding else tokens.attention_mask
            output = model(tokens.input_ids, attention_mask=shown)
        pooled = getattr(output, "pooler_output", None)
        return TextOutput(
            hidden=output.last_hidden_state.cpu().numpy(),
            mask=tokens.attention_mask.cpu().numpy() != 0,
            pooled=None if pooled is None else pooled.cpu().numpy(),
        )

    def num_tokens_of(self, prompt: str) -> int:
        """Tokens of a prompt with those that mark its ends, however many are encoded."""
        # Without the tokenizer's warning that such a prompt cannot be encoded: it is cut.
        return len(self._opened.tokenizer(prompt, truncation=False, verbose=False).input_ids)
