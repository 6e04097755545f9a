"""Which sets of real clips are compared, and what a reader has to know about them.

A Frechet distance in d figures of a clip compares covariances of d x d numbers. The covariance of n
clips has a rank of n - 1 at most: with n <= d it is singular whatever the clips are, and the
distance is mostly that of the sample size.
"""

from collections.abc import Mapping
from typing import NamedTuple

from tpdiff_jax.checks import counted


class Sets(NamedTuple):
    """Two disjoint sets of real clips, as (split, first clip), and the clips in each."""

    num_clips: int
    real: tuple[str, int]
    other: tuple[str, int]


def choose_sets(num_test: int, num_train: int, num_clips: int) -> Sets:
    """Return the sets to compare with: test clips, and further ones of the test or training split.

    Args:
        num_test: test clips that there are.
        num_train: training clips.
        num_clips: clips wanted; the sets are smaller where there are not as many.
    """
    split, count = ("test", num_test) if num_test > 1 else ("train", num_train)
    half, across = min(num_clips, count // 2), min(num_clips, num_test, num_train)
    if split == "test" and across > half:
        return Sets(across, ("test", 0), ("train", 0))
    return Sets(half, (split, 0), (split, half))


def one_video(num_wanted: int) -> str:
    """Return why nothing is measured where sets of fewer than two videos are asked for."""
    return f"nothing is measured: eval.num_videos={num_wanted}, and a set needs two videos"


def notes_on_sets(
    sets: Sets, num_test: int, num_wanted: int, dimensions: Mapping[str, int]
) -> list[str]:
    """Return what has to be said about the sets, as sentences; none where all is well.

    Args:
        sets: which are compared.
        num_test: clips that are held out.
        num_wanted: clips that were asked for.
        dimensions: d of each Frechet distance, by the name of its figure.
    """
    n, notes = sets.num_clips, []
    if num_wanted < 2:
        return [one_video(num_wanted)]
    held_out = f"{counted(num_test, 'clip')} held out"
    more = "prepare.test_share or a column of splits holds out more"
    if n < 2:
        return [f"nothing is measured: {held_out}, and two sets of two clips are needed; {more}"]
    if sets.real[0] == "train":
        notes.append(
            f"generated videos are compared with TRAINING clips ({held_out}), so that a network "
            f"which repeats them looks best; {more}"
        )
    elif sets.other[0] == "train":
        notes.append(
            f"the ceiling is that of training clips: {held_out}, and two sets of {n} need {2 * n}"
        )
    if n < num_wanted:
        notes.append(f"every set has {n} clips of {num_wanted} asked for: there are no more")
    for name, d in dimensions.items():
        if n <= d:
            notes.append(
                f"{n} clips are too few for {name}: a Frechet distance in {d} dimensions means "
                f"something from {d + 1} on"
            )
    return notes
