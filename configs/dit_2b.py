"""A video DiT of two billion parameters with joint attention, for TPU slices; else configs/flow.py.

Paper:    TPDiff, arXiv 2503.09566, flow-matching form.
Command:  python -m tpdiff_jax.main --mode=plan --config=dit_2b --workdir=runs/dit_2b
          --topology=v5p:4x4x4 --frame_shape=48,80,16
Hardware: planned for 64 chips of TPU v5p, 16 latent frames of 48x80 with 16 channels; other
          slices need other --config.mesh.data and --config.mesh.fsdp.
Result:   planned (docs/results/plan_dit_2b.md): 53.5 of 95 GiB, at most 78 % of the peak at full
          rate, 1,064 chip-hours for ten million clips at the least. Not yet run. Without
          --frame_shape the same network trains on Moving Digits of 64x64.
"""

from ml_collections import ConfigDict

from configs import flow


def get_config() -> ConfigDict:
    """Return the flow config with a large network, bfloat16 and parameters shared out."""
    config = flow.get_config()
    config.data.frame_size = 64
    config.pyramid.upsample = "nearest"

    config.model.patch_size = 2
    config.model.hidden_size = 2048
    config.model.depth = 27
    config.model.num_heads = 16  # 128 channels each: the width of a TPU's matrix unit
    config.model.attention = "joint"
    config.model.qk_norm = True
    config.model.scan_layers = True
    config.model.remat = "auto"  # v5p keeps everything, v6e nothing of a block
    config.model.dtype = "bfloat16"

    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-4

    config.train.batch_size = 64
    config.sample.batch_size = 64
    config.eval.batch_size = 64

    # 64 chips: parameters are gathered over 16 of them and lie four times in the slice.
    config.mesh.data = 4
    config.mesh.fsdp = 16
    return config
