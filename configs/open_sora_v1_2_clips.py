"""Videos with captions to what configs/open_sora_v1_2.py trains on: latents and encoded captions.

Command:  python -m tpdiff_jax.main --mode=prepare --config=open_sora_v1_2_clips \
            --config.prepare.source=VIDEOS --config.prepare.table=TABLE --workdir=CLIPS \
            --config.prepare.video_weights=VAE --config.prepare.text_weights=T5
Needs:    pip install torch transformers; about 20 GB of memory for T5-XXL in float32.
Result:   not yet run.

VAE is the folder of hpcai-tech/OpenSora-VAE-v1.2, T5 one with text_encoder and tokenizer of T5 v1.1
XXL (docs/open_sora.md). The autoencoder makes 5 latents of 17 frames; strides of 4 and 2 divide the
20 latents of 68.
"""

from ml_collections import ConfigDict

from configs import open_sora_v1_clips


def get_config() -> ConfigDict:
    """Return the preparation of 68 frames at 24 a second: 20 latents of 30x54x4."""
    config = open_sora_v1_clips.get_config()
    config.prepare.num_frames = 68  # 4 x 17
    config.prepare.fps = 24.0
    config.prepare.height = 240
    config.prepare.width = 432
    config.prepare.video_encoder = "open_sora_vae"
    config.prepare.text_tokens = 300
    return config
