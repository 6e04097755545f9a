"""Temporal-pyramid flow matching on a folder of prepared clips, without captions.

Paper:    TPDiff, arXiv 2503.09566, flow-matching form (Eq. 4, 12, 13).
Command:  python -m tpdiff_jax.main --config=video_folder \
            --config.data.folder=CLIPS --workdir=runs/clips
Clips:    --mode=prepare --config=prepare makes CLIPS; frames, size and rate are its.
Result:   not yet run at its full size.

Pixels and an unconditional network, measured against held-out clips (docs/clips.md).
"""

from ml_collections import ConfigDict

from configs import flow


def get_config() -> ConfigDict:
    """Return the flow config with prepared clips in the place of Moving Digits."""
    config = flow.get_config()
    measure = ConfigDict()
    measure.fvd_weights = ""  # I3D, from tpdiff_jax.evals.convert_i3d; "" measures no FVD
    measure.fvd_resize = "half_pixel"  # half_pixel | legacy (TensorFlow 1)
    measure.clip_folder = ""  # a CLIP model, for CLIPSIM; "" measures none
    with config.unlocked():
        config.data, config.measure = prepared_clips(num_threads=2), measure
    config.pyramid.upsample = "nearest"
    config.model.patch_size = 16  # 64 patches a frame at 128x128
    config.model.hidden_size = 384
    config.model.num_heads = 6
    config.model.depth = 8
    config.train.cond_dropout = 0.0  # there is no condition to drop,
    config.sample.guidance_scale = 1.0  # and none to be guided by
    config.lock()
    return config


def prepared_clips(num_threads: int) -> ConfigDict:
    """Return the group `data` of prepared clips."""
    data = ConfigDict()
    data.name = "video_records"
    data.folder = ""  # what --mode=prepare has written
    data.horizontal_flip = False  # mirror a random half; neither latents nor captioned left, right
    data.max_bad_share = 0.01  # unreadable records, before the run stops
    data.num_threads = num_threads
    return data
