"""Videos with captions to what configs/open_sora_v1.py trains on: latents and encoded captions.

Command:  python -m tpdiff_jax.main --mode=prepare --config=open_sora_v1_clips \
            --config.prepare.source=VIDEOS --config.prepare.table=TABLE --workdir=CLIPS \
            --config.prepare.video_weights=VAE --config.prepare.text_weights=T5
Needs:    pip install torch transformers; about 20 GB of memory for T5-XXL in float32.
Result:   not yet run.

VAE is a folder of Stable Diffusion's image autoencoder, T5 one with text_encoder and tokenizer of
T5 v1.1 XXL (docs/open_sora.md).
"""

from ml_collections import ConfigDict

from configs import prepare


def get_config() -> ConfigDict:
    """Return the preparation of two seconds at 8 frames a second: 16 latents of 32x32x4."""
    config = prepare.get_config()
    config.prepare.num_frames = 16
    config.prepare.fps = 8.0  # every third frame of 24 a second
    config.prepare.height = 256
    config.prepare.width = 256
    config.prepare.video_encoder = "image_vae"
    config.prepare.text_encoder = "t5"
    config.prepare.text_tokens = 120
    return config
