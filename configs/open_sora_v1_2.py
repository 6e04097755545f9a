"""Open-Sora 1.2 on a temporal pyramid: STDiT3-XL/2, rectified flow, 1.21 billion.

Paper:    TPDiff, arXiv 2503.09566, flow-matching form; Open-Sora, arXiv 2412.20404.
Clips:    --mode=prepare --config=open_sora_v1_2_clips makes CLIPS: 20 latents of 30x54.
Command:  python -m tpdiff_jax.main --config=open_sora_v1_2 \
            --workdir=runs/open_sora_v1_2 --config.data.folder=CLIPS \
            --config.model.weights=WEIGHTS
Twin:     the same with --config.pyramid.frame_strides="(1,)" is ordinary flow matching.
Plan:     --mode=plan --topology=v5e:4x4 --frame_shape=20,30,54,4 needs neither clips nor weights.
Result:   not yet run.

WEIGHTS is the folder of hpcai-tech/OpenSora-STDiT-v3. The time shift follows the clips' shape by
Open-Sora's formula: s = sqrt(frames height width / (64 64)) in latents. Learning rate and guidance
are Open-Sora's; nothing here was tuned.
"""

from ml_collections import ConfigDict

from configs import open_sora_v1


def get_config() -> ConfigDict:
    """Return the config of Open-Sora 1.0 with STDiT3-XL/2 and rectified flow."""
    config = open_sora_v1.get_config()
    model = config.model
    with config.unlocked():
        del model.time_scale, config.path.beta_start, config.path.beta_end
        model.fps = 24.0  # of the clips at full rate
        model.fps_of = "clip"  # clip: every stage is told that | stage: that over its stride
        config.pyramid.time_shift_shape = (1, 64, 64)  # the shape whose shift is time_shift
    model.form = "stdit3"
    model.qk_norm = True
    model.num_text_tokens = 300

    config.path.name = "flow"
    config.path.prediction = "velocity"
    # Latent 0 is the code of a single picture, with other statistics: no frame may copy it.
    config.pyramid.upsample = "nearest_next"
    config.pyramid.time_shift = 1.0

    config.optim.learning_rate = 1e-4
    config.optim.warmup_steps = 1000
    config.optim.ema_decay = 0.99
    return config
