"""CLIPSIM: how well frames fit their prompt, by CLIP's own measure.

    clipsim = 100 mean over prompts, mean over frames of cos(image(frame), text(prompt))

The papers use ViT-B/32; whatever folder is given is named by its hash beside the figure. Frames
are prepared on the host with Pillow, as published: shorter side to the network's size (bicubic,
antialiased), centre crop, CLIP's mean and deviation. CLIP's learned scale of its logits plays no
part. transformers and torch are imported when a model is opened, never by training.

Source: Radford et al., arXiv 2103.00020; as a measure of videos Wu et al., arXiv 2104.14806.
"""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tpdiff_jax.checks import naming
from tpdiff_jax.weights.language_models import open_model
from tpdiff_jax.weights.weight_hash import hash_tensors

MEAN = np.asarray((0.48145466, 0.4578275, 0.40821073), np.float32)
DEVIATION = np.asarray((0.26862954, 0.26130258, 0.27577711), np.float32)
MAX_TOKENS = 77


class ClipScorer:
    """A CLIP model from a local folder, in float32."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Read config, tokenizer and safetensors of `folder`.

        Raises:
            ValueError: when a package or file is missing, or the weights are not the model's.
        """
        if not folder.is_dir():
            raise ValueError(f"measure.clip_folder={str(folder)!r} is not a folder")
        with naming("measure.clip_folder"):
            self._opened = open_model("CLIPModel", folder, folder, purpose="CLIPSIM")
        self._size = self._opened.model.config.vision_config.image_size
        self.sha256 = folder_sha256(folder)

    def similarities(self, frames: NDArray[np.uint8], prompt: str) -> NDArray[np.float64]:
        """Return the cosine of each frame with a prompt.

        Args:
            frames: uint8 [f, h, w, 3].
            prompt: text; what exceeds 77 tokens is cut off.

        Returns:
            [f], in [-1, 1].
        """
        model, tokenizer, torch, device = self._opened
        pixels = np.stack([prepare_frame(frame, self._size) for frame in frames])
        tokens = tokenizer(
            [prompt], truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(device)
        with torch.inference_mode():
            output = model(
                input_ids=tokens.input_ids,
                attention_mask=tokens.attention_mask,
                pixel_values=torch.from_numpy(pixels).to(device),
            )
        image, text = (
            _normalised(embeds.double().cpu().numpy())
            for embeds in (output.image_embeds, output.text_embeds)
        )
        return image @ text[0]


def prepare_frame(frame: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Return CLIP's input of a frame [h, w, 3]: [3, size, size]."""
    height, width = frame.shape[:2]
    # The longer side is cut to whole pixels, as the published preprocessing does.
    new = [size * side // min(height, width) for side in (height, width)]
    picture = Image.fromarray(frame).resize((new[1], new[0]), Image.Resampling.BICUBIC)
    top, left = ((side - size) // 2 for side in new)
    cropped = np.asarray(picture)[top : top + size, left : left + size]
    scaled = (cropped / np.float32(255) - MEAN) / DEVIATION
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)


def clipsim(
    score: Callable[[NDArray[np.uint8], str], NDArray[np.float64]],
    clips: NDArray[np.uint8],
    prompts: Sequence[str],
    on_progress: Callable[[int], None] | None = None,
) -> float:
    """Return 100 times the mean over prompts of the mean over frames.

    Args:
        score: frames and a prompt -> cosines, as `ClipScorer.similarities`.
        clips: uint8 [n, f, h, w, 3].
        prompts: one for each clip.
        on_progress: called with the number of finished clips.

    Raises:
        ValueError: when there is not one prompt for each clip, or none at all.
    """
    if len(clips) != len(prompts) or not len(prompts):
        raise ValueError(f"{len(clips)} clips and {len(prompts)} prompts; allowed: one for each")
    means = []
    for done, (clip, prompt) in enumerate(zip(clips, prompts, strict=True), 1):
        means.append(float(np.mean(score(clip, prompt))))
        if on_progress is not None:
            on_progress(done)
    return 100.0 * float(np.mean(means))


def folder_sha256(folder: pathlib.Path) -> str:
    """Return the hash of the folder's weights: of their tensors, whatever files these lie in."""
    return hash_tensors(sorted(folder.glob("*.safetensors")))


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
