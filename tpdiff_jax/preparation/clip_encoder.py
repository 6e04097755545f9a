"""What is stored of a clip: its pixels, or what an autoencoder and a text encoder make of it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Encode = Callable[[np.ndarray, str], Mapping[str, np.ndarray]]


class ClipEncoder(NamedTuple):
    """What to store of a clip.

    Attributes:
        facts: what it is, down to the hash of its weights, as JSON holds it: part of the data
            set's identity.
        encode: (frames uint8 [f, h, w, 3], caption) -> arrays. "video" must be among them: uint8
            pixels, or float16 or float32 latents. Others, such as text embeddings [l, d] and their
            mask [l], reach the network as entries of the condition under the same names. Called in
            the main process, in the order of the clips; must be deterministic.
        encode_null: the same arrays but "video" for the empty prompt; none where nothing is made
            of captions.
        encode_text: the same of a caption alone, which spares several captions of a clip its
            frames; None asks `encode`.
        is_cut: whether a caption has more tokens than are encoded.
    """

    facts: Mapping[str, Any]
    encode: Encode
    encode_null: Callable[[], Mapping[str, np.ndarray]] = dict
    encode_text: Callable[[str], Mapping[str, np.ndarray]] | None = None
    is_cut: Callable[[str], bool] = lambda caption: False


def keep_pixels(frames: np.ndarray, caption: str) -> Mapping[str, np.ndarray]:
    """Store the frames as they are, and no text embedding."""
    del caption
    return {"video": frames}


PIXELS = ClipEncoder({"video": {"name": "pixels"}, "text": {"name": "none"}}, keep_pixels)
