"""Splits that folders name, where the table names none: `train/a.mp4`, `val/b.mp4`.

A folder level says so when every video lies in a folder of a split's name there, and both splits
occur. Folders above that all videos share do not count.
"""

import dataclasses
from collections.abc import Sequence

from absl import logging

from tpdiff_jax.preparation.clip_source import SPLIT_NAMES, ClipSource, split_key


def with_folder_splits(clips: Sequence[ClipSource]) -> list[ClipSource]:
    """Return the clips, with the splits of their folders where nothing else says them.

    Args:
        clips: of one table or folder.

    Returns:
        The same clips, in order; the log says what was taken, or why a folder such as `val` is not.
    """
    level = _level(clips)
    if level is None or any(clip.split for clip in clips):
        return list(clips)
    names = {clip.path.split("/")[level] for clip in clips}
    splits = {name: SPLIT_NAMES.get(split_key(name)) for name in names}
    if set(splits.values()) == {"train", "test"}:
        logging.info("splits are those of the folders %s", ", ".join(sorted(names)))
        return [
            dataclasses.replace(clip, split=splits[clip.path.split("/")[level]] or "")
            for clip in clips
        ]
    held_out = sorted(name for name, split in splits.items() if split == "test")
    others = sorted(name for name, split in splits.items() if split is None)
    if held_out and others:
        logging.warning(
            "folders %s are not taken for a split, as %s name none: clips of both are held out at "
            "random; a column of splits says which",
            *(", ".join(held_out), ", ".join(others[:5])),
        )
    return list(clips)


def _level(clips: Sequence[ClipSource]) -> int | None:
    """The first level of folders that not all clips share; None where there is none."""
    folders = [clip.path.split("/")[:-1] for clip in clips]
    for level in range(min(map(len, folders), default=0)):
        if len({parts[level] for parts in folders}) > 1:
            return level
    return None
