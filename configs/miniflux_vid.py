"""MiniFlux-vid: the paper's flow-matching system, full-sequence miniFLUX at 640x384, 2.0 billion.

Paper:    TPDiff, arXiv 2503.09566, section 4 (MiniFlux-vid); Pyramid-Flow, arXiv 2410.05954.
Clips:    --mode=prepare --config=miniflux_clips makes CLIPS: 16 latents of 48x80.
Command:  python -m tpdiff_jax.main --config=miniflux_vid --workdir=runs/miniflux \
            --config.data.folder=CLIPS --config.model.weights=WEIGHTS/diffusion_transformer_384p
Twin:     the same with --config.pyramid.frame_strides="(1,)" is ordinary flow matching.
Plan:     --mode=plan --topology=v5p:4x4x4 --frame_shape=16,48,80,16 needs neither clips nor
          weights; docs/results/plan_miniflux.md has what it says.
Hardware: laid out for 64 chips; other slices need another --config.mesh.fsdp and batch.
Result:   not yet run.

Without --config.model.weights the parameters are drawn. Learning rate, text dropout and guidance
are Pyramid-Flow's; nothing here was tuned.
"""

from ml_collections import ConfigDict

from configs import flow
from configs.video_folder import prepared_clips


def get_config() -> ConfigDict:
    """Return the flow config with miniFLUX on the causal autoencoder's latents."""
    config = flow.get_config()
    model = ConfigDict()
    model.name = "flux"
    model.weights = ""  # folder of published weights to start from; "" draws them
    model.patch_size = 2
    model.num_heads = 30
    model.num_double_blocks = 8
    model.num_single_blocks = 16
    model.mlp_ratio = 4.0
    model.rope_dims = (16, 24, 24)  # channels of a head for frame, row and column
    model.text_dim = 4096
    model.num_text_tokens = 128
    model.pooled_dim = 768
    model.is_causal = False  # True: a frame sees the text and the frames up to itself
    model.attention_kernel = "auto"  # auto | xla | blocks | splash (TPU) | cudnn (GPU, bfloat16)
    model.dtype = "bfloat16"
    model.scan_layers = True
    model.remat = "full"  # none | dots | offload | full | auto
    with config.unlocked():
        config.data, config.model = prepared_clips(num_threads=4), model

    config.path.prediction = "velocity"
    # Latent 0 is the code of a single picture, with other statistics: no frame may copy it.
    config.pyramid.upsample = "nearest_next"

    config.optim.name = "adamw"
    config.optim.learning_rate = 5e-5
    config.optim.schedule = "constant"
    config.optim.warmup_steps = 1000
    config.optim.b2 = 0.95
    config.optim.ema_decay = 0.9999

    config.train.num_steps = 20_000
    config.train.batch_size = 64
    config.train.eval_every_steps = 0  # no exact evaluators for such clips
    config.sample.guidance_scale = 5.0
    config.sample.batch_size = 64
    config.eval.batch_size = 64

    # 64 chips: parameters are gathered over 16 of them and lie four times in the slice.
    config.mesh.data = -1
    config.mesh.fsdp = 16
    config.lock()
    return config
