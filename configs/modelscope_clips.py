"""Videos with captions to what configs/modelscope.py trains on: latents and encoded captions.

Command:  python -m tpdiff_jax.main --mode=prepare --config=modelscope_clips \
            --config.prepare.source=VIDEOS --config.prepare.table=TABLE --workdir=CLIPS \
            --config.prepare.video_weights=WEIGHTS/vae --config.prepare.text_weights=WEIGHTS
Needs:    pip install torch transformers, for OpenCLIP's text encoder.
Result:   not yet run.

WEIGHTS is a folder laid out as diffusers' pipelines: vae, text_encoder, tokenizer.
"""

from ml_collections import ConfigDict

from configs import animatediff_clips


def get_config() -> ConfigDict:
    """Return AnimateDiff's preparation: the same latents, and the text encoder of WEIGHTS."""
    return animatediff_clips.get_config()
