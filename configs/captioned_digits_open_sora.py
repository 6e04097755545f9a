"""A small STDiT3 (Open-Sora 1.2) on captioned Moving Digits, in pixels: text to video on a CPU.

Command:  python -m experiments.captioned_digits --config=configs/captioned_digits_open_sora.py \
            --out=runs/captioned_open_sora --num_clips=1200 --num_videos=48 \
            --arms=pyramid,vanilla --seeds=0,1,2 --config.train.num_steps=1500
          writes clips and a text encoder of random weights, prepares, trains, samples, measures.
Result:   with --seeds=0: label accuracy of 48 new captions 1.00 with the pyramid and without it, at
          4.1 TFLOP each; for another's caption 0.04; chance 0.10
          (docs/results/captioned_digits_open_sora.md). Other seeds not yet run.

The network sees T5's tokens under their mask; for a dropped caption it has an embedding of its own.
"""

from ml_collections import ConfigDict

from configs import captioned_digits


def get_config() -> ConfigDict:
    """Return the captioned config with a small STDiT3."""
    config = captioned_digits.get_config()
    model = ConfigDict()
    model.name = "open_sora"
    model.weights = ""
    model.form = "stdit3"
    model.patch_size = 8
    model.hidden_size = 128
    model.num_heads = 4
    model.depth = 3
    model.mlp_ratio = 4.0
    model.qk_norm = True
    model.text_dim = 32
    model.num_text_tokens = 12
    model.base_side = 64
    model.fps = 8.0
    model.fps_of = "clip"
    model.has_variance = False
    model.attention_kernel = "auto"
    model.dtype = "float32"
    model.scan_layers = True
    model.remat = "none"
    with config.unlocked():
        config.model = model

    config.train.num_steps = 3000
    config.lock()
    return config
