"""Videos with captions to what configs/animatediff.py trains on: latents and encoded captions.

Command:  python -m tpdiff_jax.main --mode=prepare --config=animatediff_clips \
            --config.prepare.source=VIDEOS --config.prepare.table=TABLE --workdir=CLIPS \
            --config.prepare.video_weights=WEIGHTS/vae --config.prepare.text_weights=WEIGHTS
Needs:    pip install torch transformers, for CLIP.
Result:   not yet run.

WEIGHTS is a folder laid out as published pipelines of Stable Diffusion 1.5: vae, text_encoder,
tokenizer.
"""

from ml_collections import ConfigDict

from configs import prepare


def get_config() -> ConfigDict:
    """Return the preparation of two seconds at 8 frames a second: 16 latents of 32x32x4."""
    config = prepare.get_config()
    config.prepare.num_frames = 16
    config.prepare.fps = 8.0  # AnimateDiff was trained on every fourth frame of 30 a second
    config.prepare.height = 256
    config.prepare.width = 256
    config.prepare.video_encoder = "image_vae"
    config.prepare.text_encoder = "clip"
    return config
