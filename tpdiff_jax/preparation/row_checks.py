"""From a row of a table to a video with its captions, or the reason why there is none.

Rows of the same video count once; their captions are kept together where several are asked for.
"""

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import logging

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.preparation.clip_source import (
    ClipSource,
    SkippedClip,
    check_contained,
    clean_caption,
    clip_name,
    to_score,
    to_split,
)
from tpdiff_jax.preparation.column_names import Columns
from tpdiff_jax.preparation.csv_rows import TableRow

SHOWN_PATH_CHARACTERS = 200


class Sources(NamedTuple):
    """The usable rows in the table's order, and the others."""

    clips: list[ClipSource]
    skipped: list[SkippedClip]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceRules:
    """What makes a row usable.

    Args:
        max_caption_bytes: longer captions skip their row.
        also_allowed: folders beside the data folder that videos may lie in, resolved.
        captions_per_video: so many captions of a video are kept, in the table's order.
        needs_captions: whether a video without a caption is bad.
    """

    max_caption_bytes: int
    also_allowed: tuple[pathlib.Path, ...] = ()
    captions_per_video: int = 1
    needs_captions: bool = False


class SourceRow(NamedTuple):
    """A row with what its table says about it.

    Attributes:
        row: its fields.
        columns: the table's names of those that are read.
        folders: that relative paths may start from, within the data folder or absolute.
    """

    row: TableRow
    columns: Columns
    folders: tuple[str, ...]


class RowReader:
    """Checks rows one by one."""

    def __init__(self, root: pathlib.Path, rules: SourceRules, sources: Sources) -> None:
        """Start with what is known already.

        Args:
            root: the data folder, resolved.
            rules: what makes a row usable.
            sources: where rows go.
        """
        self._root, self._rules, self._sources = root, rules, sources
        self._seen: dict[str, tuple[int, str]] = {}  # path -> place in `clips`, place in the table
        self._reasons: collections.Counter[str] = collections.Counter()
        self._captions_left_out = 0

    def add(self, given: SourceRow) -> None:
        """Take a row, as a clip or with its reason."""
        row, columns, _ = given
        path = "" if isinstance(row.fields, BadClipError) else row.fields.get(columns.path)
        try:
            if isinstance(row.fields, BadClipError):
                raise row.fields
            self._take(self._checked(row.fields, given), row.place)
        except BadClipError as bad:
            self._reasons[bad.reason] += 1
            detail = ": ".join(text for text in (row.place, bad.detail) if text)
            name = path[:SHOWN_PATH_CHARACTERS] if isinstance(path, str) else ""
            self._sources.skipped.append(SkippedClip(path=name, reason=bad.reason, detail=detail))

    def _checked(self, fields: Mapping[str, Any], given: SourceRow) -> ClipSource:
        columns, rules = given.columns, self._rules

        def value(column: str) -> Any:
            return fields.get(column) if column else None

        path = value(columns.path)
        if not isinstance(path, str):
            raise BadClipError("malformed_row", "path and caption must be text")
        path = self._found(path, given.folders)
        captions = read_captions(value(columns.caption), rules.max_caption_bytes)
        if not captions and rules.needs_captions:
            raise BadClipError("no_caption")
        return ClipSource(
            path=path,
            caption=captions[0] if captions else "",
            other_captions=tuple(captions[1:]),
            split=to_split(value(columns.split)),
            motion=to_score(value(columns.motion)),
            aesthetic=to_score(value(columns.aesthetic)),
        )

    def _found(self, path: str, folders: tuple[str, ...]) -> str:
        """The clip's name, once its file is known to lie where it may."""
        problem = BadClipError("missing_file")
        texts = dict.fromkeys((path, path.strip()))
        for folder, text in itertools.product(folders, texts):
            name = (pathlib.PurePosixPath(folder) / text).as_posix() if text else ""
            try:
                return self._contained(name)
            except BadClipError as bad:
                if folder.startswith("/"):  # of a table elsewhere: the path is judged as a source's
                    continue
                if bad.reason != "missing_file":
                    raise
                problem = bad
        raise problem

    def _contained(self, path: str) -> str:
        check_contained(self._root, path, self._rules.also_allowed)
        return clip_name(self._root, path)

    def _take(self, clip: ClipSource, place: str) -> None:
        """Add a clip, or its captions to those of an earlier row."""
        most, (clips, _) = self._rules.captions_per_video, self._sources
        if clip.path not in self._seen:
            self._seen[clip.path] = (len(clips), place)
            clips.append(self._cut(clip, clip.captions))
            return
        index, earlier = self._seen[clip.path]
        before = clips[index]
        if clip.split != before.split:
            raise BadClipError("duplicate", f"another split than {earlier} says")
        if not clip.caption or (most == 1 and clip.caption == before.caption):
            raise BadClipError("duplicate", f"as {earlier}")
        if before.caption and most == 1:
            hint = "prepare.captions_per_video keeps several"
            raise BadClipError("duplicate", f"another caption than {earlier}; {hint}")
        clips[index] = self._cut(before, (*before.captions, *clip.captions))

    def _cut(self, clip: ClipSource, captions: tuple[str, ...]) -> ClipSource:
        kept = [*dict.fromkeys(captions)][: self._rules.captions_per_video]
        self._captions_left_out += len(captions) - len(kept)
        first, *others = kept or [""]
        return dataclasses.replace(clip, caption=first, other_captions=tuple(others))

    def tell(self) -> None:
        """Say how many videos have a caption; none where they are needed is an error."""
        clips, _ = self._sources
        number = sum(bool(clip.caption) for clip in clips)
        total = len(clips) + self._reasons["no_caption"]
        told = f"captions: {number} of {total} videos"
        if not number and self._reasons["no_caption"]:
            raise ValueError(
                f"{told}; prepare.text_encoder needs them (prepare.missing_captions='keep' takes "
                "the empty prompt). Read are the column prepare.caption_column of a table, or "
                "VIDEO.txt, VIDEO.mp4.txt or VIDEO.caption beside each video"
            )
        logging.log(logging.INFO if number == total else logging.WARNING, "%s", told)
        if self._captions_left_out:
            logging.warning(
                "%d further captions are left out: repeated, or over prepare.captions_per_video=%d",
                *(self._captions_left_out, self._rules.captions_per_video),
            )


def read_captions(value: Any, max_bytes: int) -> list[str]:
    """Return the captions that a row gives, without those that are only blanks.

    Args:
        value: of the table's field: a text, several, or nothing.
        max_bytes: of each.

    Raises:
        BadClipError: malformed_row or caption_too_long.
    """
    if isinstance(value, BadClipError):
        raise value
    values = (
        value if isinstance(value, list) else [] if value is None or value != value else [value]
    )
    if not all(isinstance(text, str) for text in values):
        raise BadClipError("malformed_row", "path and caption must be text")
    cleaned = (clean_caption(text, max_bytes) for text in values)
    return [text for text in cleaned if text]
