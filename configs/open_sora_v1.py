"""Open-Sora 1.0 on a temporal pyramid: STDiT-XL/2, DDIM, 16 frames of 256x256, 760 million.

Paper:    TPDiff, arXiv 2503.09566, DDIM form; Open-Sora, arXiv 2412.20404.
Clips:    --mode=prepare --config=open_sora_v1_clips makes CLIPS: 16 latents of 32x32.
Command:  python -m tpdiff_jax.main --config=open_sora_v1 --workdir=runs/open_sora_v1 \
            --config.data.folder=CLIPS --config.model.weights=WEIGHTS
Twin:     the same with --config.pyramid.frame_strides="(1,)" is ordinary DDIM.
Plan:     --mode=plan --topology=v5e:4x4 --frame_shape=16,32,32,4 needs neither clips nor weights.
Result:   not yet run.

WEIGHTS holds a copy in safetensors of the published file (docs/open_sora.md). Learning rate, betas,
text dropout and guidance are Open-Sora's; nothing here was tuned. The embedding of no text
stays as it is published.
"""

from ml_collections import ConfigDict

from configs import flow
from configs.video_folder import prepared_clips


def get_config() -> ConfigDict:
    """Return the flow config with STDiT-XL/2 on Stable Diffusion's latents, and DDIM."""
    config = flow.get_config()
    model = ConfigDict()
    model.name = "open_sora"
    model.weights = ""  # folder of published weights to start from; "" draws them
    model.form = "stdit"  # stdit (1.0) | stdit3 (1.2)
    model.patch_size = 2
    model.hidden_size = 1152
    model.num_heads = 16
    model.depth = 28
    model.mlp_ratio = 4.0
    model.qk_norm = False
    model.text_dim = 4096
    model.num_text_tokens = 120
    model.base_side = 64  # latents: frames of all sizes are stretched to those of 512 x 512
    model.time_scale = 1.0  # 2 / 3 in the network for 64 frames
    model.has_variance = True
    model.attention_kernel = "auto"  # auto | xla | blocks | splash (TPU) | cudnn (GPU, bfloat16)
    model.dtype = "bfloat16"
    model.scan_layers = True
    model.remat = "full"  # none | dots | offload | full | auto
    with config.unlocked():
        config.data, config.model = prepared_clips(num_threads=4), model
        config.path.beta_start = 0.0001
        config.path.beta_end = 0.02

    config.path.name = "ddim"
    config.path.prediction = "eps"
    config.path.betas = "linear"
    config.pyramid.upsample = "nearest"

    config.optim.name = "adamw"
    config.optim.learning_rate = 2e-5
    config.optim.schedule = "constant"
    config.optim.warmup_steps = 100
    config.optim.weight_decay = 0.0
    config.optim.b2 = 0.999
    config.optim.ema_decay = 0.9999
    config.adaptation.trained = r"(?!stem/(no_text|frequencies)).*"

    config.train.num_steps = 20_000
    config.train.batch_size = 64
    config.train.cond_dropout = 0.1
    config.train.eval_every_steps = 0  # no exact evaluators for such clips
    config.sample.guidance_scale = 7.0
    config.sample.batch_size = 64
    config.eval.batch_size = 64

    config.mesh.data = -1
    config.lock()
    return config
