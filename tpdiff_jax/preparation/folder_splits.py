"""Splits that folders name, where the table names none: `train/a.mp4`, `val/b.mp4`.

A folder level says so when every video lies in a folder of a split's name there, and both splits
occur; the uppermost such level counts. Folders that all videos share say nothing.
"""

import dataclasses
import os.path
from collections.abc import Sequence

from absl import logging

from tpdiff_jax.clips.split_names import find_split
from tpdiff_jax.preparation.clip_source import ClipSource


def with_folder_splits(clips: Sequence[ClipSource]) -> list[ClipSource]:
    """Return the clips, with the splits of their folders where nothing else says them.

    Args:
        clips: of one table or folder.

    Returns:
        The same clips, in order; the log says what was taken, or that a folder such as `val` is
        not.
    """
    if any(clip.split for clip in clips):
        return list(clips)
    folders = [clip.path.split("/")[:-1] for clip in clips]
    for names in zip(*folders, strict=False):  # one level after the other, to the shallowest video
        splits = [find_split(name) for name in names]
        if set(splits) == {"train", "test"}:
            logging.info("splits are those of the folders %s", ", ".join(sorted(set(names))))
            return [dataclasses.replace(c, split=s) for c, s in zip(clips, splits, strict=True)]
    shared = len(os.path.commonprefix(folders))
    others = {name for parts in folders for name in parts[shared:]}
    if held_out := sorted(name for name in others if find_split(name) == "test"):
        logging.warning(
            "folders %s are not taken for a split: on no level of folders is every video in one "
            "of a split's name, with train and a held-out one among them. Clips are held out at "
            "random; a column of splits says which",
            ", ".join(held_out[:5]),
        )
    return list(clips)
