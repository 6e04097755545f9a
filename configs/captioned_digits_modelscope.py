"""A small ModelScope network on captioned Moving Digits: DDIM in a small autoencoder's latents.

Command:  python -m experiments.captioned_digits --config=configs/captioned_digits_modelscope.py \
            --out=runs/captioned_modelscope --arms=vanilla --num_clips=1500 --num_videos=48
          makes the clips, a text encoder of random weights and an autoencoder, then prepares,
          trains, samples and measures.
Result:   one seed, 11.3 TFLOP: label accuracy of 48 new captions 0.71; for another's caption 0.04;
          chance 0.10 (docs/results/captioned_digits_modelscope.md).

As in configs/captioned_digits_ddim.py the data is predicted and there is no signal at t = 1. With
--config.model.implicit_rate=True --config.pyramid.strides="(4, 2, 1)" --arms=pyramid,vanilla
compares a pyramid, whose frame rate the network can tell by the noise time alone; not yet run.
"""

from ml_collections import ConfigDict

from configs import captioned_digits_ddim


def get_config() -> ConfigDict:
    """Return the captioned DDIM config with a small ModelScope network, without a pyramid."""
    config = captioned_digits_ddim.get_config()
    model = ConfigDict()
    model.name = "modelscope"
    model.weights = ""
    model.level_channels = (32, 64)
    model.level_depth = 1
    model.head_dim = 8
    model.num_groups = 8
    model.text_dim = 32
    model.num_text_tokens = 12
    model.implicit_rate = False
    model.attention_kernel = "auto"
    model.dtype = "float32"
    model.remat = "none"
    with config.unlocked():
        config.model = model

    config.pyramid.strides = (1,)
    config.train.num_steps = 1500
    config.lock()
    return config
