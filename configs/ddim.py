"""Temporal-pyramid DDIM on the embedded Moving Digits; all else as configs/flow.py.

Paper:    TPDiff, arXiv 2503.09566, DDIM form (Eq. 10, 11).
Command:  python -m tpdiff_jax.main --config=ddim --workdir=runs/ddim
Twin:     the same with --config.pyramid.frame_strides="(1,)" is ordinary DDIM.
Hardware: two CPU cores, as long as configs/flow.py.
Result:   half of the steps, five seeds: label accuracy 0.487 (real clips 0.969), identity over
          frames 0.487 (0.992), speed histogram 0.174 px/frame from real (0.010; frozen clips
          0.341); beside vanilla in docs/results.md. Not yet run at its full length.
"""

from ml_collections import ConfigDict

from configs import flow


def get_config() -> ConfigDict:
    """Return the flow config with the DDIM path in its place."""
    config = flow.get_config()
    config.path.name = "ddim"
    # Moving Digits is mostly background: with Stable Diffusion's terminal signal of 0.068 the mean
    # of a clip would still show at t = 1, where sampling starts from pure noise.
    config.path.zero_terminal_snr = True
    return config
