"""Temporal-pyramid flow matching on a folder of TensorFlow Datasets, without captions.

Paper:    TPDiff, arXiv 2503.09566, flow-matching form (Eq. 4, 12, 13).
Command:  python -m tpdiff_jax.main --config=tfds_folder \
            --config.data.folder=DATA/my_clips/1.0.0 --workdir=runs/tfds
Clips:    array_record, clips as tfds.features.Tensor of fixed shape; TensorFlow is not needed.
Result:   not yet run at its full size.
"""

from ml_collections import ConfigDict

from configs import video_folder


def get_config() -> ConfigDict:
    """Return the config of prepared clips with a folder of TFDS in their place."""
    config = video_folder.get_config()
    data = ConfigDict()
    data.name = "tfds_folder"
    data.folder = ""  # of one version: dataset_info.json, features.json and shards
    data.video_key = "video"
    data.caption_key = "caption"  # "" for none
    data.fps = 8.0  # of the clips; TFDS does not record it
    data.horizontal_flip = False  # mirror a random half; not where captions say left and right
    data.max_bad_share = 0.01  # unreadable records, before the run stops
    data.num_threads = 2
    with config.unlocked():
        config.data = data
    config.lock()
    return config
