"""Videos with captions to clips to train from: 16 frames of 128x128 pixels at 8 frames a second.

Command:  python -m tpdiff_jax.main --mode=prepare --config=prepare \
            --config.prepare.source=VIDEOS --workdir=CLIPS
Then:     configs/video_folder.py trains from CLIPS.
Speed:    not yet run on a collection of real size; `python -m bench.data` measures a machine.

The table's column names below are OpenVid-1M's; where a table lacks them, those of other trainers
are looked for. Without a table every video under the folder is taken, with the text file of the
same name as its caption. docs/clips.md lists what is read.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the locked default config; every field can be overridden on the command line."""
    config = ConfigDict()

    config.prepare = ConfigDict()
    config.prepare.source = ""  # folder of the videos
    config.prepare.also_allowed = ()  # further folders that paths and links may lead to
    # .csv | .tsv | .jsonl | .json | videos.txt; "" looks in the source for one, and else takes the
    # text files beside the videos, as "sidecar" does anyway
    config.prepare.table = ""
    config.prepare.path_column = "video"
    config.prepare.caption_column = "caption"
    config.prepare.motion_column = "motion score"
    config.prepare.aesthetic_column = "aesthetic score"
    config.prepare.split_column = "split"
    config.prepare.missing_files = "bad"  # bad | leave_out (a part of a collection)
    config.prepare.missing_captions = "bad"  # bad | keep; only where there is a text encoder
    config.prepare.captions_per_video = 1  # so many are stored, and one is drawn a step
    config.prepare.curation = "everything"  # everything | paper
    config.prepare.top_both = 0.20  # paper only: both scores in the top share,
    config.prepare.top_one = 0.03  # or at least one in this one
    config.prepare.max_caption_bytes = 4096

    config.prepare.num_frames = 16
    config.prepare.fps = 8.0
    config.prepare.height = 128
    config.prepare.width = 128
    # Several shapes instead: frames x height x width, such as ("16x128x128", "16x96x160").
    config.prepare.buckets = ()
    config.prepare.clips_per_video = 1

    # What is stored of a clip. Weights are folders on this machine; nothing is downloaded.
    # pixels | causal_video_vae | image_vae | open_sora_vae | wan_vae
    config.prepare.video_encoder = "pixels"
    config.prepare.video_weights = ""
    config.prepare.text_encoder = "none"  # none | clip | t5 | t5_clip | umt5 (torch, transformers)
    config.prepare.text_weights = ""
    config.prepare.text_tokens = 0  # 0 is the encoder's own number

    config.prepare.test_share = 0.02  # held out, where the table does not say

    config.prepare.max_pixels = 20_000_000_000  # width x height x frames: 80 s of 4K at 30 fps
    config.prepare.max_seconds = 600.0
    config.prepare.max_bad_share = 0.01  # more bad rows or videos stop the run with exit code 7,
    config.prepare.bad_allowed = 2  # but so many never do, unless they are more than half

    config.prepare.videos_per_shard = 512  # also the unit of resuming
    config.prepare.num_workers = 2  # decoding processes; 0 decodes in the main one
    config.prepare.host_index = 0  # several hosts with one output folder: 0 to host_count - 1
    config.prepare.host_count = 1

    config.lock()
    return config
