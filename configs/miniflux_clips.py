"""Videos with captions to what configs/miniflux_vid.py trains on: latents and encoded captions.

Command:  python -m tpdiff_jax.main --mode=prepare --config=miniflux_clips \
            --config.prepare.source=VIDEOS --config.prepare.table=TABLE --workdir=CLIPS \
            --config.prepare.video_weights=WEIGHTS/causal_video_vae \
            --config.prepare.text_weights=WEIGHTS
Needs:    pip install torch transformers; about 20 GB of memory for T5-XXL in float32.
Result:   not yet run.

WEIGHTS is a folder laid out as Pyramid-Flow's published miniFLUX: causal_video_vae, text_encoder,
tokenizer (CLIP), text_encoder_2, tokenizer_2 (T5).
"""

from ml_collections import ConfigDict

from configs import prepare


def get_config() -> ConfigDict:
    """Return the preparation of five seconds at 24 frames a second: 16 latents of 48x80x16."""
    config = prepare.get_config()
    config.prepare.num_frames = 121  # 1 + 8 x 15
    config.prepare.fps = 24.0
    config.prepare.height = 384
    config.prepare.width = 640
    config.prepare.video_encoder = "causal_video_vae"
    config.prepare.text_encoder = "t5_clip"
    config.prepare.videos_per_shard = 64
    return config
