"""Videos with captions for configs/open_sora_v1_2.py: latents of an image autoencoder, 300 tokens.

Command:  python -m tpdiff_jax.main --mode=prepare --config=configs/open_sora_v1_2_clips.py \
            --config.prepare.source=VIDEOS --config.prepare.table=TABLE --workdir=CLIPS \
            --config.prepare.video_weights=VAE --config.prepare.text_weights=T5
Needs:    pip install torch transformers; about 20 GB of memory for T5-XXL in float32.
Result:   not yet run.

Stable Diffusion's autoencoder keeps every frame: such latents train the network from random
weights. The published ones know those of Open-Sora's own video autoencoder, a quarter as many
frames, which is not read.
"""

from ml_collections import ConfigDict

from configs import open_sora_v1_clips


def get_config() -> ConfigDict:
    """Return the preparation of 16 frames at 24 a second: 16 latents of 32x32x4."""
    config = open_sora_v1_clips.get_config()
    config.prepare.fps = 24.0
    config.prepare.text_tokens = 300
    return config
