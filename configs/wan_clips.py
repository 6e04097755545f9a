"""Videos with captions to what configs/wan_t2v.py trains on: latents and encoded captions.

Command:  python -m tpdiff_jax.main --mode=prepare --config=wan_clips \
            --config.prepare.source=VIDEOS --config.prepare.table=TABLE --workdir=CLIPS \
            --config.prepare.video_weights=WEIGHTS/vae --config.prepare.text_weights=WEIGHTS
Needs:    pip install torch transformers; about 23 GB of memory for UMT5-XXL in float32.
Result:   not yet run.

WEIGHTS is a folder laid out as diffusers' pipelines of Wan2.1: vae, text_encoder, tokenizer.
"""

from ml_collections import ConfigDict

from configs import prepare


def get_config() -> ConfigDict:
    """Return the preparation of five seconds at 16 frames a second: 21 latents of 60x104x16."""
    config = prepare.get_config()
    config.prepare.num_frames = 81  # 1 + 4 x 20
    config.prepare.fps = 16.0
    config.prepare.height = 480
    config.prepare.width = 832
    config.prepare.video_encoder = "wan_vae"
    config.prepare.text_encoder = "umt5"
    config.prepare.videos_per_shard = 64
    return config
