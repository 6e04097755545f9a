"""Folders of a few small clips of every kind that can be trained on, and configs for them."""

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import captioned_digits, tfds_folder, video_folder
from tests.data.tfds_files import write_tfds_folder
from tests.preparation.video_files import write_video
from tests.test_prepare import make_spec
from tests.tiny import SIZES, set_field
from tpdiff_jax.preparation.clip_encoder import PIXELS, ClipEncoder
from tpdiff_jax.prepare import prepare

FRAMES, TOKENS, WIDTH = 4, 3, 8
KINDS = ("pixels", "latents", "tfds")
NUM_CLIPS = 16
"""A batch or more in every bucket, no two alike: rounding decides which noise equal clips get."""
_RUN: dict[str, Any] = {
    **{name: value for name, value in SIZES.items() if not name.startswith(("data.", "model."))},
    "pyramid.frame_strides": (1,),
    "alignment.group_size": 4,
    "train.num_steps": 2,
    "train.batch_size": 8,
    "train.log_every_steps": 1,
    "train.checkpoint_every_steps": 1,
    "sample.num_steps": 1,
    "sample.num_videos": 2,
    "sample.batch_size": 2,
    "eval.num_videos": 2,
    "eval.batch_size": 2,
}
_DIT = {"hidden_size": 16, "depth": 1, "num_heads": 2, "patch_size": 8}
_FLUX = {
    **{"num_heads": 1, "num_double_blocks": 1, "num_single_blocks": 1, "rope_dims": (4, 2, 2)},
    **{"patch_size": 2, "text_dim": WIDTH, "num_text_tokens": TOKENS, "pooled_dim": WIDTH},
}


def encode_text(caption: str) -> dict[str, np.ndarray]:
    """Stand in for a text encoder: numbers of the caption's length."""
    row = np.arange(WIDTH, dtype=np.float16) / WIDTH
    return {
        "text": np.tile(row, (TOKENS, 1)) + np.float16(len(caption)),
        "text_mask": np.arange(TOKENS) <= len(caption) % TOKENS,
        "pooled": row - np.float16(len(caption)),
    }


def encode_clip(frames: np.ndarray, caption: str) -> dict[str, np.ndarray]:
    """Stand in for a video encoder: every fourth row and column is the latent."""
    latents = frames[:, ::4, ::4].astype(np.float32) / 128 - 1
    return {"video": latents, **encode_text(caption)}


FACTS = {
    "video": {"name": "image_vae", "weights_sha256": "0"},
    "text": {"name": "t5_clip", "weights_sha256": "1", "text_tokens": TOKENS},
}


def prepare_clips(folder: pathlib.Path, kind: str) -> pathlib.Path:
    """Make clips of one of `KINDS`, or "buckets"; return their folder."""
    if kind == "tfds":
        generator = np.random.default_rng(0)
        shape = (FRAMES, 16, 16, 3)
        clips = [
            (generator.integers(0, 256, shape).astype(np.uint8), f"clip {i}")
            for i in range(NUM_CLIPS)
        ]
        return write_tfds_folder(folder / "tfds" / "1.0.0", {"train": clips}, shape)
    videos = folder / "videos"
    videos.mkdir(parents=True)
    for i in range(NUM_CLIPS):
        size = (48, 32) if kind == "buckets" and i % 2 else (32, 48)
        write_video(videos / f"{i}.mp4", 24 + 6 * i, size=size)  # other frames in its middle
        (videos / f"{i}.txt").write_text("stripes" * (i + 1))
    encoder = (
        PIXELS if kind != "latents" else ClipEncoder(FACTS, encode_clip, lambda: encode_text(""))
    )
    fields: dict[str, Any] = {"num_frames": FRAMES, "height": 16, "width": 16}
    if kind == "buckets":
        fields = {"buckets": ("4x16x24", "2x24x16")}
    prepare(make_spec(videos, **fields), folder / "clips", encoder)
    return folder / "clips"


def clip_config(folder: pathlib.Path, kind: str, **fields: Any) -> ConfigDict:
    """Return a small config for clips of a kind; fields are given as `group__field=value`."""
    module = {"latents": captioned_digits, "tfds": tfds_folder}.get(kind, video_folder)
    config = module.get_config()
    model = _FLUX if kind == "latents" else _DIT
    values = {**_RUN, **{f"model.{name}": value for name, value in model.items()}}
    values["data.folder"] = str(folder)
    for name, value in values.items():
        set_field(config, name, value)
    for name, value in fields.items():
        set_field(config, name.replace("__", "."), value)
    return config
