"""A small Flux transformer on captioned Moving Digits, in pixels: text to video on two CPU cores.

Command:  python -m experiments.captioned_digits --out=runs/captioned
          writes the clips and text encoders of random weights, prepares, trains, samples, measures.
Twin:     --arms=pyramid,vanilla also trains ordinary flow matching, at equal FLOPs.
Result:   one seed, 64 new captions: label accuracy 0.53; for another clip's caption 0.09; chance
          0.10. After half of the clips and steps 0.34, 0.08. About 20 minutes of a core's time.
"""

from ml_collections import ConfigDict

from configs import flow
from configs.video_folder import prepared_clips


def get_config() -> ConfigDict:
    """Return the flow config with a small Flux transformer on prepared clips."""
    config = flow.get_config()
    model = ConfigDict()
    model.name = "flux"
    model.weights = ""
    model.patch_size = 8
    model.num_heads = 4
    model.num_double_blocks = 2
    model.num_single_blocks = 2
    model.mlp_ratio = 4.0
    model.rope_dims = (12, 10, 10)
    model.text_dim = 32
    model.num_text_tokens = 12
    model.pooled_dim = 32
    model.is_causal = False
    model.attention_kernel = "auto"
    model.dtype = "float32"
    model.scan_layers = True
    model.remat = "none"
    with config.unlocked():
        config.data, config.model = prepared_clips(num_threads=1), model

    config.pyramid.upsample = "nearest"
    config.train.num_steps = 4000
    config.train.sample_every_steps = 0
    config.train.eval_every_steps = 0
    config.train.checkpoint_every_steps = 500
    config.lock()
    return config
