"""ModelScope text-to-video: DDIM on 16 frames of 256x256, 1.41 billion parameters.

Paper:    ModelScope, arXiv 2308.06571; a baseline of TPDiff, arXiv 2503.09566.
Clips:    --mode=prepare --config=modelscope_clips makes CLIPS: 16 latents of 32x32.
Command:  python -m tpdiff_jax.main --config=modelscope --workdir=runs/modelscope \
            --config.data.folder=CLIPS --config.model.weights=WEIGHTS
Pyramid:  over space with --config.pyramid.strides="((1, 2, 2), (1, 1, 1))". Over time only with
          --config.model.implicit_rate=True --config.pyramid.strides="(4, 2, 1)": the network has
          no positions of frames, so nothing but the noise time tells it how fast they follow.
Result:   not yet run; the published weights have not been loaded (docs/modelscope.md).

WEIGHTS is a folder as diffusers' pipelines are laid out; its unet is read. Everything is trained;
low-rank changes to every attention are
--config.adaptation.rank=32 --config.adaptation.alpha=32 \
  --config.adaptation.trained=".*/attention_./(q|k|v|out)/kernel".
Schedule, prediction, steps and guidance are the published ones; text dropout is AnimateDiff's, the
learning rate a guess. Nothing here was tuned.
"""

from ml_collections import ConfigDict

from configs import flow
from configs.video_folder import prepared_clips


def get_config() -> ConfigDict:
    """Return the flow config with ModelScope's network on its autoencoder's latents, and DDIM."""
    config = flow.get_config()
    model = ConfigDict()
    model.name = "modelscope"
    model.weights = ""  # folder of published weights to start from; "" draws them
    model.level_channels = (320, 640, 1280, 1280)
    model.level_depth = 2
    model.head_dim = 64
    model.num_groups = 32
    model.text_dim = 1024
    model.num_text_tokens = 77
    model.implicit_rate = False  # True lets a pyramid have stages of fewer frames a second
    model.attention_kernel = "auto"  # auto | xla | blocks | splash (TPU) | cudnn (GPU, bfloat16)
    model.dtype = "bfloat16"
    model.remat = "full"  # none | dots | offload | full | auto
    with config.unlocked():
        config.data, config.model = prepared_clips(num_threads=4), model

    config.path.name = "ddim"
    config.path.prediction = "eps"
    config.path.betas = "scaled_linear"
    config.path.final_alpha = "first"
    config.pyramid.strides = (1,)
    config.pyramid.upsample = "nearest"
    config.alignment.mode = "none"  # nothing but what the network was trained with

    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-5
    config.optim.schedule = "constant"
    config.optim.warmup_steps = 1000
    config.optim.b2 = 0.999
    config.optim.ema_decay = 0.9999

    config.train.num_steps = 20_000
    config.train.batch_size = 64
    config.train.cond_dropout = 0.1
    config.train.eval_every_steps = 0  # no exact evaluators for such clips
    config.sample.num_steps = 50
    config.sample.guidance_scale = 9.0
    config.sample.batch_size = 64
    config.eval.batch_size = 64

    # Each of 8 chips holds an eighth of the parameters.
    config.mesh.data = -1
    config.mesh.fsdp = 8
    config.lock()
    return config
