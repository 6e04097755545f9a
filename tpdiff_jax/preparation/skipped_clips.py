"""What a preparation has left out so far: counted, listed, and stopping it past a share."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Sequence

from absl import logging

from tpdiff_jax.clips.bad_clips import REASONS, TooManyBadClipsError
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.preparation.clip_source import SkippedClip

SKIPPED_FILE = "skipped.jsonl"
SHOWN_CHARACTERS = 400
SHOWN_ROWS = 10


@dataclasses.dataclass
class SkippedClips:
    """What has been left out so far, and how much of it stops the run.

    Args:
        folder: where `skipped.jsonl` goes.
        max_bad_share: of the rows, and of the chosen videos.
        bad_allowed: so many are too few to stop the run, if no more than half are bad: the share
            of a small set is less than one.
        left_out: rows without a file that do not count as bad.
        rows: bad rows of the table.
        videos: bad videos.
    """

    folder: pathlib.Path
    max_bad_share: float
    bad_allowed: int
    left_out: list[SkippedClip]
    rows: list[SkippedClip]
    videos: list[SkippedClip] = dataclasses.field(default_factory=list)

    def check(self, what: str, total: int) -> None:
        """Raise TooManyBadClipsError when more than is allowed of `total` is bad."""
        bad = {"rows": self.rows, "videos": self.videos}[what]
        if len(bad) > max(self.max_bad_share * total, min(self.bad_allowed, total / 2)):
            self.write()
            counts = ", ".join(f"{reason} {n}" for reason, n in count_reasons(bad).items())
            raise TooManyBadClipsError(
                f"{len(bad)} of {total} {what} are bad, more than prepare.max_bad_share="
                f"{self.max_bad_share}: {counts}; the first: {shown_skip(bad[0])}; listed in "
                f"{self.folder / SKIPPED_FILE}"
            )

    def tell_rows(self) -> None:
        """Log the rows that are left out, the first of them by name."""
        for row in self.rows[:SHOWN_ROWS]:
            logging.warning("row left out: %s", shown_skip(row))
        if (more := len(self.rows) - SHOWN_ROWS) > 0:
            logging.warning("and %d more rows; %s will list them", more, SKIPPED_FILE)
        if self.left_out:
            first = shown_skip(self.left_out[0])
            logging.warning("%d rows have no file, such as %s", len(self.left_out), first)

    def write(self) -> None:
        """Write `skipped.jsonl`: one JSON object a row or video, in the order of the input."""
        lines = [
            json.dumps({"what": what, **vars(clip)}) + "\n"
            for what, clips in (("row", self.rows + self.left_out), ("video", self.videos))
            for clip in clips
        ]
        write_durably(self.folder / SKIPPED_FILE, "".join(lines).encode())


def shown_skip(clip: SkippedClip) -> str:
    """Return which it is and why, on one line."""
    what = " ".join(part for part in (repr(clip.path) if clip.path else "", clip.reason) if part)
    return " ".join(f"{what}{': ' if clip.detail else ''}{clip.detail}".split())[:SHOWN_CHARACTERS]


def count_reasons(clips: Sequence[SkippedClip]) -> dict[str, int]:
    """Return how many were skipped for each reason, in the order of `REASONS`."""
    counts = collections.Counter(clip.reason for clip in clips)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}
