"""From video files and captions to shards of clips: what `--mode=prepare` is made of.

    caption_tables -> clip_source         rows, checked before any file is opened
    curation, shard_plan                  which videos, in which shard
    video_decode                          the frames of a clip:
        -> video_file, frame_times            opened, which frames
        -> deinterlace                        one picture of two fields (video_file asks it, too)
        -> frame_picture -> colour_tags, colour_maths, frame_resize    its colours, its size
    decode_pool                           the same on several processes
    clip_encoder                          what is stored of a clip
    shard_writer                          what is written, in the form of `clips`

Without jax and grain: decoding processes start quickly and stay small. `data/video_records.py`
reads what is written here.
"""
