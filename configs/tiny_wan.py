"""configs/wan_t2v.py small enough for a CPU: all parameters, 5 latents of 4x4.

Commands: experiments/tiny_wan.py writes clips and random weights and lists them.
Result:   nothing to look at; it shows that the path works.
"""

from ml_collections import ConfigDict

from configs import wan_t2v


def get_config() -> ConfigDict:
    """Return Wan's config with a tiny network, trained in full."""
    config = wan_t2v.get_config()
    config.model.patch_size = 1
    config.model.num_heads = 2
    config.model.head_dim = 12
    config.model.depth = 2
    config.model.feed_forward_dim = 48
    config.model.text_dim = 16
    config.model.num_text_tokens = 12
    config.model.dtype = "float32"
    config.model.remat = "none"
    config.adaptation.trained = ""
    config.adaptation.rank = 0
    config.adaptation.alpha = 1.0
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 10
    config.train.num_steps = 40
    config.train.log_every_steps = 10
    config.train.checkpoint_every_steps = 20
    config.train.sample_every_steps = 20
    config.sample.num_steps = 6
    config.sample.num_videos = 4
    config.sample.batch_size = 4
    config.eval.num_videos = 4
    config.eval.batch_size = 4
    config.mesh.fsdp = 1
    return config
