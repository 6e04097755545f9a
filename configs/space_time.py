"""A pyramid over time, height and width on Moving Digits of 64x64; all else as configs/flow.py.

Paper:    TPDiff, arXiv 2503.09566, its temporal pyramid, pooled over space as well (as in
          arXiv 2410.05954): stages of 4x16x16, 8x32x32 and 16x64x64.
Command:  python -m tpdiff_jax.main --config=space_time --workdir=runs/space_time
Twins:    the same with --config.pyramid.frame_strides="(4,2,1)" pools time alone, with "(1,)"
          nothing; "((1,4,4),(1,2,2),(1,1,1))" for --config.pyramid.strides pools space alone.
Hardware: two CPU cores.
Result:   not yet run at this length; 8 minutes on one core each, beside its twins at equal FLOPs:
          docs/results/space_time.md.
"""

from ml_collections import ConfigDict

from configs import flow


def get_config() -> ConfigDict:
    """Return the flow config with frames of 64x64 and strides over all three axes."""
    config = flow.get_config()
    config.data.frame_size = 64
    config.pyramid.strides = ((4, 4, 4), (2, 2, 2), (1, 1, 1))
    config.pyramid.upsample = "nearest"
    return config
