"""Wan2.1 text-to-video on a temporal pyramid: low-rank fine-tuning at 832x480, 1.4 billion.

Paper:    TPDiff, arXiv 2503.09566, its third system; Wan, arXiv 2503.20314.
Clips:    --mode=prepare --config=wan_clips makes CLIPS: 21 latents of 60x104.
Command:  python -m tpdiff_jax.main --config=wan_t2v --workdir=runs/wan \
            --config.data.folder=CLIPS --config.model.weights=WEIGHTS/transformer
Twin:     the same with --config.pyramid.frame_strides="(1,)" is ordinary flow matching.
Full:     all parameters with --config.adaptation.rank=0 --config.adaptation.trained="" and a
          smaller --config.optim.learning_rate.
14B:      --config.model.num_heads=40 --config.model.depth=40 \
            --config.model.feed_forward_dim=13824
Plan:     --mode=plan --topology=v5e:2x4 --frame_shape=21,60,104,16 needs neither clips nor
          weights; docs/results/plan_wan.md has what it says.
Hardware: laid out for 8 chips; other slices need another --config.mesh.fsdp and batch.
Result:   not yet run.

WEIGHTS/transformer is diffusers' folder; the folder of Wan's own code is read as well (docs/
weights.md). Without --config.model.weights the parameters are drawn. Rank, learning rate and the
matrices that are changed (queries, keys, values and outputs of both attentions, and the
feed-forward layers) are DiffSynth-Studio's for this network, the time shift is Wan's; nothing here
was tuned.
"""

from ml_collections import ConfigDict

from configs import flow
from configs.video_folder import prepared_clips


def get_config() -> ConfigDict:
    """Return the flow config with Wan2.1-T2V-1.3B on its causal autoencoder's latents."""
    config = flow.get_config()
    model = ConfigDict()
    model.name = "wan"
    model.weights = ""  # folder of published weights to start from; "" draws them
    model.patch_size = 2
    model.num_heads = 12
    model.head_dim = 128
    model.depth = 30
    model.feed_forward_dim = 8960
    model.text_dim = 4096
    model.num_text_tokens = 512
    model.attention_kernel = "auto"  # auto | xla | blocks | splash (TPU) | cudnn (GPU, bfloat16)
    model.dtype = "bfloat16"
    model.scan_layers = True
    model.remat = "full"  # none | dots | offload | full | auto
    with config.unlocked():
        config.data, config.model = prepared_clips(num_threads=4), model

    config.path.prediction = "velocity"
    # Latent 0 is the code of a single picture, with other statistics: no frame may copy it.
    config.pyramid.upsample = "nearest_next"
    config.pyramid.time_shift = 5.0

    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-4
    config.optim.schedule = "constant"
    config.optim.warmup_steps = 100
    config.optim.b2 = 0.999
    config.optim.ema_decay = 0.999

    config.adaptation.trained = (
        r"blocks/((self|cross)_attention/(q|k|v|out)|feed_forward/(inner|outer))/kernel"
    )
    config.adaptation.rank = 32
    config.adaptation.alpha = 32.0

    config.train.num_steps = 10_000
    config.train.batch_size = 8
    config.train.eval_every_steps = 0  # no exact evaluators for such clips
    config.sample.guidance_scale = 5.0
    config.sample.batch_size = 8
    config.eval.batch_size = 8

    # 8 chips: each holds an eighth of the parameters and one clip.
    config.mesh.data = -1
    config.mesh.fsdp = 8
    config.lock()
    return config
