"""Frozen networks around the trained one: captions to conditions, frames to latents and back.

    text_encoders    table: name -> the language models that make a condition, and how
    text_models      one language model of a local folder, through transformers
    video_encoders   table: name -> constructor of a video autoencoder
    clip_encoder     both together, as preparation stores clips
    weight_hash      the identity of a folder of weights

Used where clips are prepared and where prompts are sampled, never in training: the records hold
what was encoded. torch and transformers are imported when a text encoder is opened, not before;
`pip install torch transformers` brings them. Nothing is downloaded.
"""

from tpdiff_jax.encoders.clip_encoder import make_clip_encoder
from tpdiff_jax.encoders.text_encoders import TEXT_ENCODERS, TextEncoder, open_text_encoder
from tpdiff_jax.encoders.text_models import free_device_memory
from tpdiff_jax.encoders.video_encoders import (
    FIRST_LATENT_APART,
    VIDEO_ENCODERS,
    VideoEncoder,
    open_video_encoder,
)
from tpdiff_jax.weights.weight_hash import hash_folders

__all__ = [
    "FIRST_LATENT_APART",
    "TEXT_ENCODERS",
    "VIDEO_ENCODERS",
    "TextEncoder",
    "VideoEncoder",
    "free_device_memory",
    "hash_folders",
    "make_clip_encoder",
    "open_text_encoder",
    "open_video_encoder",
]
