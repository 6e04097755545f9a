"""Text encoders by name: which language models they are, and what of them becomes the condition.

    "clip"     Stable Diffusion 1.5: CLIP's last hidden states, 77 tokens
    "t5_clip"  miniFLUX: T5's hidden states with their mask, 128 tokens, and CLIP's pooled vector
    "t5"       Open-Sora: T5's hidden states with their mask, 120 tokens
    "umt5"     Wan: UMT5's hidden states, 512 tokens, zero behind the prompt, without a mask

A folder of weights is laid out as published pipelines are: `text_encoder`, `tokenizer` and, with
two models, `text_encoder_2`, `tokenizer_2` beside each other.
"""

import dataclasses
import importlib.metadata
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tpdiff_jax.encoders.stored import as_stored
from tpdiff_jax.encoders.text_models import TextModel, TextOutput
from tpdiff_jax.weights.weight_hash import hash_folders

TEXT_PACKAGES = ("torch", "transformers", "tokenizers")
OUTPUTS: Mapping[str, Callable[[TextOutput], Any]] = {
    "hidden": lambda output: output.hidden,
    "hidden_of_prompt": lambda output: output.hidden * output.mask[..., None],
    "mask": lambda output: output.mask,
    "pooled": lambda output: output.pooled,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextPart:
    """One language model of a text encoder.

    Attributes:
        kind: name of its class in transformers.
        number: "" or "_2": which of the folder's models it is.
        num_tokens: prompts are padded or cut to it.
        entries: name in the condition -> key of `OUTPUTS`.
    """

    kind: str
    number: str = ""
    num_tokens: int
    entries: Mapping[str, str]

    @property
    def is_text(self) -> bool:
        """Whether the entry "text" comes from it."""
        return "text" in self.entries

    @property
    def folders(self) -> tuple[str, str]:
        """Folders of weights and tokenizer."""
        return f"text_encoder{self.number}", f"tokenizer{self.number}"


TEXT_ENCODERS: Mapping[str, tuple[TextPart, ...]] = {
    "clip": (TextPart(kind="CLIPTextModel", num_tokens=77, entries={"text": "hidden"}),),
    "t5_clip": (
        TextPart(
            kind="T5EncoderModel",
            number="_2",
            num_tokens=128,
            entries={"text": "hidden", "text_mask": "mask"},
        ),
        TextPart(kind="CLIPTextModel", num_tokens=77, entries={"pooled": "pooled"}),
    ),
    "t5": (
        TextPart(
            kind="T5EncoderModel", num_tokens=120, entries={"text": "hidden", "text_mask": "mask"}
        ),
    ),
    "umt5": (
        TextPart(kind="UMT5EncoderModel", num_tokens=512, entries={"text": "hidden_of_prompt"}),
    ),
}


class TextEncoder:
    """Prompts to the arrays of a condition.

    Attributes:
        facts: what decides the arrays, as JSON holds it.
    """

    def __init__(self, parts: Sequence[TextPart], folder: pathlib.Path, facts: Any) -> None:
        """Read the models of `parts`."""
        self.facts: Mapping[str, Any] = facts
        self._parts = [(part, _open_model(part, folder)) for part in parts]

    def __call__(self, prompts: Sequence[str]) -> dict[str, np.ndarray]:
        """Encode prompts one by one, so that each one's bits do not depend on the others.

        Returns:
            Entries of the condition by name, [n, ...] each: float16, and bool masks.

        Raises:
            ValueError: when an embedding has no place in float16.
        """
        rows = [self._encode(prompt) for prompt in prompts]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def is_cut(self, prompt: str) -> bool:
        """Whether a prompt has more tokens than the entry "text" holds; the rest is not seen.

        The pooled vector of a second model may see less of it.
        """
        return any(m.num_tokens_of(prompt) > p.num_tokens for p, m in self._parts if p.is_text)

    def _encode(self, prompt: str) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for part, model in self._parts:
            output = model([prompt])
            arrays |= {name: OUTPUTS[key](output) for name, key in part.entries.items()}
        for name, array in arrays.items():
            if array.dtype != np.bool_:
                refusal = f"{name!r} of prompt {prompt[:200]!r} exceeds float16"
                arrays[name] = as_stored(array, refusal)
        return arrays


def open_text_encoder(name: str, folder: pathlib.Path, num_tokens: int = 0) -> TextEncoder:
    """Read a text encoder.

    Args:
        name: a key of `TEXT_ENCODERS`.
        folder: where its weights lie.
        num_tokens: tokens of the entry "text"; 0 is the encoder's own number.

    Raises:
        ValueError: when a package or a file is missing or does not fit.
    """
    parts = [_with_tokens(part, num_tokens) for part in TEXT_ENCODERS[name]]
    facts = {
        "name": name,
        "text_tokens": next(part.num_tokens for part in parts if part.is_text),
        "weights_sha256": hash_folders(folder, [f for part in parts for f in part.folders]),
    }
    encoder = TextEncoder(parts, folder, facts)
    encoder.facts = facts | {"versions": {p: importlib.metadata.version(p) for p in TEXT_PACKAGES}}
    return encoder


def _open_model(part: TextPart, folder: pathlib.Path) -> TextModel:
    weights, tokenizer = part.folders
    return TextModel(part.kind, folder / weights, folder / tokenizer, part.num_tokens)


def _with_tokens(part: TextPart, num_tokens: int) -> TextPart:
    if not num_tokens or not part.is_text:
        return part
    return dataclasses.replace(part, num_tokens=num_tokens)
