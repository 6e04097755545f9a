"""AnimateDiff on Stable Diffusion 1.5: the paper's DDIM system, 16 frames of 256x256, 1.28 billion.

Paper:    TPDiff, arXiv 2503.09566, section 4 (AnimateDiff); AnimateDiff, arXiv 2307.04725.
Clips:    --mode=prepare --config=animatediff_clips makes CLIPS: 16 latents of 32x32.
Command:  python -m tpdiff_jax.main --config=animatediff --workdir=runs/animatediff \
            --config.data.folder=CLIPS --config.model.weights=WEIGHTS
Twin:     the same with --config.pyramid.frame_strides="(1,)" is ordinary DDIM.
Plan:     --mode=plan --topology=v5e:4x4 --frame_shape=16,32,32,4 needs neither clips nor weights:
          at most 13.9 of a chip's 16 GiB (docs/results/plan_animatediff.md).
Result:   not yet run.

WEIGHTS holds unet and motion_adapter as diffusers lays them out, the latter perhaps with
AnimateDiff's own names. Motion modules are trained; --config.adaptation.trained="" trains
everything, and low-rank changes to every attention of the U-Net are
--config.adaptation.rank=32 --config.adaptation.alpha=32 \
  --config.adaptation.trained=".*/attention_./(q|k|v|out)/kernel".
Learning rate, text dropout and guidance are AnimateDiff's; nothing here was tuned.
"""

from ml_collections import ConfigDict

from configs import flow
from configs.video_folder import prepared_clips


def get_config() -> ConfigDict:
    """Return the flow config with AnimateDiff on Stable Diffusion's latents, and DDIM."""
    config = flow.get_config()
    model = ConfigDict()
    model.name = "animatediff"
    model.weights = ""  # folder of published weights to start from; "" draws them
    model.level_channels = (320, 640, 1280, 1280)
    model.level_depth = 2
    model.num_heads = 8
    model.num_groups = 32
    model.text_dim = 768
    model.num_text_tokens = 77
    model.motion_form = "v3"  # v1 (24 positions) | v2 (in the middle too) | v3
    model.motion_norm = "per_frame"  # per_frame | all_frames (diffusers)
    model.attention_kernel = "auto"  # auto | xla | blocks | splash (TPU) | cudnn (GPU, bfloat16)
    model.dtype = "bfloat16"
    model.remat = "full"  # none | dots | offload | full | auto
    with config.unlocked():
        config.data, config.model = prepared_clips(num_threads=4), model

    config.path.name = "ddim"
    config.path.prediction = "eps"
    config.path.betas = "linear"  # AnimateDiff's; Stable Diffusion's own are scaled_linear
    config.pyramid.upsample = "nearest"

    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-4
    config.optim.schedule = "constant"
    config.optim.warmup_steps = 1000
    config.optim.b2 = 0.999
    config.optim.ema_decay = 0.9999
    config.adaptation.trained = ".*/motion/.*"

    config.train.num_steps = 20_000
    config.train.batch_size = 64
    config.train.cond_dropout = 0.1
    config.train.eval_every_steps = 0  # no exact evaluators for such clips
    config.sample.guidance_scale = 7.5
    config.sample.batch_size = 64
    config.eval.batch_size = 64

    config.mesh.data = -1
    config.lock()
    return config
