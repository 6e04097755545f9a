"""A small AnimateDiff on captioned Moving Digits: DDIM in the latents of a small autoencoder.

Command:  python -m experiments.captioned_digits --config=configs/captioned_digits_ddim.py \
            --out=runs/captioned_ddim --arms=pyramid,vanilla
          makes the clips, a text encoder of random weights and an autoencoder, then prepares,
          trains, samples and measures.
Result:   one seed, --num_clips=1500 --config.train.num_steps=1500, 64 new captions: label accuracy
          0.42 with the pyramid, 0.78 without at equal FLOPs; 0.03 and 0.08 against another clip's
          caption; chance is 0.10.

As in configs/ddim.py the data is predicted and there is no signal at t = 1.
"""

from ml_collections import ConfigDict

from configs import captioned_digits


def get_config() -> ConfigDict:
    """Return the captioned config with a small AnimateDiff and DDIM."""
    config = captioned_digits.get_config()
    model = ConfigDict()
    model.name = "animatediff"
    model.weights = ""
    model.level_channels = (32, 64)
    model.level_depth = 1
    model.num_heads = 4
    model.num_groups = 8
    model.text_dim = 32
    model.num_text_tokens = 12
    model.motion_form = "v2"
    model.motion_norm = "per_frame"
    model.attention_kernel = "auto"
    model.dtype = "float32"
    model.remat = "none"
    with config.unlocked():
        config.model = model

    config.path.name = "ddim"
    config.path.zero_terminal_snr = True
    config.optim.name = "adamw"
    config.optim.learning_rate = 2e-3
    config.lock()
    return config
