"""Reading captions: CSV, JSON lines, MSR-VTT's JSON, or a text file beside each video.

Columns are found by name. A row that cannot be used is skipped and listed with its reason
(`bad_clips.REASONS`); a table without the named columns is the user's mistake and raises.
"""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.preparation.clip_source import (
    ClipSource,
    SkippedClip,
    check_contained,
    clean_caption,
    to_score,
    to_split,
)

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".gif", ".apng"),
)
MAX_LINE_BYTES = 2**24
SHOWN_PATH_CHARACTERS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of a table's columns. The defaults are OpenVid-1M's; only `path` must exist."""

    path: str = "video"
    caption: str = "caption"
    motion: str = "motion score"
    aesthetic: str = "aesthetic score"
    split: str = "split"


class Sources(NamedTuple):
    """The usable rows in the table's order, and the others."""

    clips: list[ClipSource]
    skipped: list[SkippedClip]


TableRow = Mapping[str, Any] | BadClipError
"""A row as named fields, or why there is none."""


def read_sources(
    root: pathlib.Path,
    table: pathlib.Path | None,
    columns: Columns,
    *,
    max_caption_bytes: int,
) -> Sources:
    """Read and check every row.

    Args:
        root: folder of the videos; the table's paths are relative to it.
        table: `.csv`, `.jsonl` or MSR-VTT's `.json`; None takes every video under `root`, with
            the text file of the same name (`a.mp4`, `a.txt`) as its caption where there is one.
        columns: names of the columns; MSR-VTT's are known.
        max_caption_bytes: longer captions skip their row.

    Returns:
        Usable rows and skipped ones, in the table's order.

    Raises:
        ValueError: when folder or table do not exist, or the table has no such column.
    """
    if not root.is_dir():
        raise ValueError(f"prepare.source={str(root)!r} is not a folder")
    root = root.resolve()
    if table is None:
        rows, columns = _sidecar_rows(root, max_caption_bytes), Columns()
    else:
        rows, columns = _table_rows(table, columns)
    clips: list[ClipSource] = []
    skipped: list[SkippedClip] = []
    seen: set[str] = set()
    for row in rows:
        path = "" if isinstance(row, BadClipError) else row.get(columns.path)
        try:
            if isinstance(row, BadClipError):
                raise row
            clip = _checked(root, row, columns, max_caption_bytes)
            if clip.path in seen:
                raise BadClipError("duplicate")
            seen.add(clip.path)
            clips.append(clip)
        except BadClipError as bad:
            shown = path[:SHOWN_PATH_CHARACTERS] if isinstance(path, str) else ""
            skipped.append(SkippedClip(path=shown, reason=bad.reason, detail=bad.detail))
    return Sources(clips, skipped)


def _checked(
    root: pathlib.Path, row: Mapping[str, Any], columns: Columns, max_caption_bytes: int
) -> ClipSource:
    path, caption = row.get(columns.path), row.get(columns.caption)
    caption = "" if caption is None else caption
    if not isinstance(path, str) or not isinstance(caption, str):
        raise BadClipError("malformed_row", "path and caption must be text")
    check_contained(root, path)
    return ClipSource(
        path=pathlib.PurePosixPath(path).as_posix(),
        caption=clean_caption(caption, max_caption_bytes),
        split=to_split(row.get(columns.split)),
        motion=to_score(row.get(columns.motion)),
        aesthetic=to_score(row.get(columns.aesthetic)),
    )


def _table_rows(table: pathlib.Path, columns: Columns) -> tuple[Iterator[TableRow], Columns]:
    readers: dict[str, Callable[[pathlib.Path, Columns], Iterator[TableRow]]] = {
        ".csv": _csv_rows,
        ".jsonl": _json_lines_rows,
        ".json": _msr_vtt_rows,
    }
    suffix = table.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"prepare.table={str(table)!r} must end in {', '.join(readers)}")
    if not table.is_file():
        raise ValueError(f"prepare.table={str(table)!r} is not a file")
    if suffix == ".json":
        columns = Columns()
    return readers[suffix](table, columns), columns


def _csv_rows(table: pathlib.Path, columns: Columns) -> Iterator[TableRow]:
    """Rows of a CSV file with a header. A malformed row ends at its line's end."""
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if columns.path not in header:
            raise ValueError(
                f"prepare.path_column={columns.path!r} is no column of {table.name}; it has: "
                f"{', '.join(header)[:500]}"
            )
        # The library's own limit (128 KiB a field) would hide which caption was too long.
        before = csv.field_size_limit(MAX_LINE_BYTES)
        try:
            yield from _named_rows(reader, header)
        finally:
            csv.field_size_limit(before)


def _named_rows(reader: Any, header: list[str]) -> Iterator[TableRow]:
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadClipError("malformed_row", str(error))
            continue
        if not values:
            continue  # an empty line
        if len(values) != len(header):
            yield BadClipError("malformed_row", f"{len(values)} fields, header {len(header)}")
            continue
        yield dict(zip(header, values, strict=True))


def _json_lines_rows(table: pathlib.Path, columns: Columns) -> Iterator[TableRow]:
    has_path = False
    with table.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            if not line.strip():
                continue
            row = _parsed(line)
            has_path |= isinstance(row, Mapping) and columns.path in row
            yield row
    if not has_path:
        raise ValueError(f"prepare.path_column={columns.path!r} is in no line of {table.name}")


def _parsed(line: bytes) -> TableRow:
    try:
        row = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return BadClipError("malformed_row", f"{type(error).__name__}: not a JSON object")
    return row if isinstance(row, dict) else BadClipError("malformed_row", "not a JSON object")


def _msr_vtt_rows(table: pathlib.Path, columns: Columns) -> Iterator[TableRow]:
    """One row a video, with the caption of the lowest `sen_id` of its twenty."""
    try:
        content = json.loads(table.read_text(encoding="utf-8", errors="replace"))
        videos, sentences = content["videos"], content["sentences"]
        ordered = sorted(sentences, key=lambda s: s["sen_id"])
        captions = {s["video_id"]: s["caption"] for s in reversed(ordered)}
        rows = [(video["video_id"], video.get("split")) for video in videos]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"prepare.table={str(table)!r} is not MSR-VTT's JSON (`videos` with video_id and "
            f"split, `sentences` with video_id, sen_id and caption): {type(error).__name__}"
        ) from error
    for name, split in rows:
        yield {
            columns.path: f"{name}.mp4",
            columns.caption: captions.get(name, ""),
            columns.split: split,
        }


def _sidecar_rows(root: pathlib.Path, max_caption_bytes: int) -> Iterator[TableRow]:
    """Every video under `root` by name, with the text file beside it."""
    columns = Columns()
    paths = (p for p in root.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    for path in sorted(p.relative_to(root).as_posix() for p in paths):
        caption = ""
        try:
            text = check_contained(root, str(pathlib.PurePosixPath(path).with_suffix(".txt")))
            with text.open("rb") as file:
                caption = file.read(max_caption_bytes + 1).decode("utf-8", "replace")
        except BadClipError as bad:
            if bad.reason != "missing_file":
                yield BadClipError(bad.reason, f"caption of {path[:SHOWN_PATH_CHARACTERS]}")
                continue
        yield {columns.path: path, columns.caption: caption}
