"""A look at everything in two minutes: trains, samples, measures, writes a report.

Paper:    TPDiff, arXiv 2503.09566, flow-matching form; all else as configs/flow.py.
Command:  python -m tpdiff_jax.main --config=smoke --workdir=runs/smoke
Hardware: two CPU cores; 147 seconds of processor time in all, about 90 of them compiling (jax
          0.10.2, a shared machine). What is compiled is kept: started again it takes a tenth.
Result:   one seed, 1,000 steps: digits are there (digit_found 1.00; real clips 1), not yet the
          asked-for ones (label accuracy 0.16; chance 0.10), and they do not move right yet (speed
          histogram 0.51 px/frame from real; frozen clips 0.35). configs/flow.py learns that.
"""

from ml_collections import ConfigDict

from configs import flow


def get_config() -> ConfigDict:
    """Return the flow config with a small network, short clips and few steps."""
    config = flow.get_config()
    config.data.num_frames = 8
    config.model.hidden_size = 64
    config.model.depth = 2
    config.optim.warmup_steps = 20
    config.optim.ema_decay = 0.98
    config.train.num_steps = 1000
    config.train.log_every_steps = 20
    config.train.checkpoint_every_steps = 500
    config.train.sample_every_steps = 0
    config.train.eval_every_steps = 0
    config.sample.num_steps = 15
    config.eval.num_videos = 32
    return config
