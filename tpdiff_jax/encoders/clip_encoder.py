"""What preparation stores of a clip: pixels or latents, and the encoded caption."""

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tpdiff_jax.checks import check_choice, naming
from tpdiff_jax.encoders.text_encoders import TEXT_ENCODERS, open_text_encoder
from tpdiff_jax.encoders.video_encoders import VIDEO_ENCODERS, VideoEncoder, open_video_encoder
from tpdiff_jax.preparation.clip_encoder import PIXELS, ClipEncoder

if TYPE_CHECKING:  # what makes no clips does without what reads videos
    from tpdiff_jax.preparation.prepare_spec import PrepareSpec


def make_clip_encoder(spec: "PrepareSpec") -> ClipEncoder:
    """Open the encoders that `prepare.video_encoder` and `prepare.text_encoder` name.

    Raises:
        ValueError: when they cannot be read, or clips do not suit them.
    """
    _check_encoder("video", spec.video_encoder, ("pixels", *VIDEO_ENCODERS), spec.video_weights)
    _check_encoder("text", spec.text_encoder, ("none", *TEXT_ENCODERS), spec.text_weights)
    video = text = None
    if spec.video_encoder != "pixels":
        with naming("prepare.video_weights"):
            video = open_video_encoder(spec.video_encoder, pathlib.Path(spec.video_weights))
        _check_clips(spec, video)
    if spec.text_encoder != "none":
        weights = pathlib.Path(spec.text_weights)
        with naming("prepare.text_weights"):
            text = open_text_encoder(spec.text_encoder, weights, spec.text_tokens)

    def encode_text(caption: str) -> dict[str, np.ndarray]:
        arrays = text([caption]) if text else {}
        return {name: array[0] for name, array in arrays.items()}

    def encode(frames: np.ndarray, caption: str) -> Mapping[str, np.ndarray]:
        stored = video.encode(frames) if video else frames
        return {"video": stored, **encode_text(caption)}

    return ClipEncoder(
        facts={
            "video": video.facts if video else PIXELS.facts["video"],
            "text": text.facts if text else PIXELS.facts["text"],
        },
        encode=encode,
        encode_null=lambda: encode_text(""),
        encode_text=encode_text,
        is_cut=text.is_cut if text else PIXELS.is_cut,
    )


def _check_clips(spec: "PrepareSpec", video: VideoEncoder) -> None:
    """Raise ValueError unless clips of every shape have latents."""
    for bucket in spec.clip_buckets:
        with naming(f"prepare.buckets, {bucket}" if spec.buckets else ""):
            video.check_clip(*bucket)


def _check_encoder(what: str, name: str, allowed: tuple[str, ...], weights: str) -> None:
    check_choice(f"prepare.{what}_encoder", name, allowed)
    if name != allowed[0] and not pathlib.Path(weights).is_dir():
        raise ValueError(
            f"prepare.{what}_weights={weights!r} must be the folder of the weights of "
            f"prepare.{what}_encoder={name!r}"
        )
