"""Videos with captions to what configs/tiny_wan.py trains on: 17 frames become 5 latents of 4x4.

Commands: experiments/tiny_wan.py writes videos and random weights and lists them.
"""

from ml_collections import ConfigDict

from configs import wan_clips


def get_config() -> ConfigDict:
    """Return Wan's preparation for frames of 32x32."""
    config = wan_clips.get_config()
    config.prepare.num_frames = 17
    config.prepare.fps = 8.0
    config.prepare.height = 32
    config.prepare.width = 32
    config.prepare.text_tokens = 12
    config.prepare.test_share = 0.2
    return config
