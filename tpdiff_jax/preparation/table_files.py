"""Opening a table of captions: which form it has, what its columns are called, its rows.

    .csv .tsv            a header and rows; separated by comma, tab, semicolon or bar
    .jsonl .ndjson       one JSON object a line; in .json too
    .json                a list of objects (or {"data": [...]}), {video: caption or captions}, or
                         MSR-VTT's videos and sentences
    videos.txt           one path a line, and prompt.txt beside it: one caption a line

A row that cannot be read is yielded with its reason; a table that is none of these is the user's
mistake and raises.
"""

import csv
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from absl import logging

from tpdiff_jax.checks import naming
from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.files.text_files import (
    damage,
    is_damaged,
    open_text,
    read_text,
    text_lines,
)
from tpdiff_jax.preparation.column_names import Columns, find_columns, is_path_column
from tpdiff_jax.preparation.csv_rows import (
    MAX_ROW_BYTES,
    SEPARATORS,
    NumberedLines,
    TableRow,
    csv_rows,
    next_record,
    split_line,
)

VIDEO_LISTS = ("videos.txt", "video.txt")
CAPTION_LISTS = ("captions.txt", "caption.txt", "prompts.txt", "prompt.txt")
HEAD_ROWS = 1000  # rows of JSON whose names are taken for the columns'
JSON_FORMS = (
    "a list of objects, {'data': list of objects}, {video: caption}, or MSR-VTT's `videos` with "
    "video_id and split and `sentences` with video_id, sen_id and caption"
)


class OpenTable(NamedTuple):
    """An opened table.

    Attributes:
        form: what it is, for the log.
        columns: its own names of the columns that are read; "" for one it does not have.
        names: of all its columns.
        rows: yet to be read.
    """

    form: str
    columns: Columns
    names: list[str]
    rows: Iterator[TableRow]


def open_table(path: pathlib.Path, columns: Columns, is_path: Callable[[str], bool]) -> OpenTable:
    """Open a table.

    Args:
        path: of the file.
        columns: names as the config has them.
        is_path: whether a text is a video's path.

    Raises:
        ValueError: when it does not exist, is of no known form or has no column of paths.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        hint = "; write it as CSV or JSON lines" if suffix in (".parquet", ".xlsx") else ""
        raise ValueError(f"prepare.table={str(path)!r} must end in {', '.join(READERS)}{hint}")
    if not path.is_file():
        raise ValueError(
            f"prepare.table={str(path)!r} is not a file (seen from {pathlib.Path.cwd()})"
        )
    with naming(f"prepare.table={str(path)!r}"):
        return READERS[suffix](path, columns, is_path)


def _open_csv(path: pathlib.Path, wanted: Columns, is_path: Callable[[str], bool]) -> OpenTable:
    lines = NumberedLines(_lines(path))
    first = next((line for line in lines if line.strip()), "")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:  # Excel's
        separator, first = first.strip()[-1], next(lines, "")
    else:
        known = (s for s in SEPARATORS if is_path_column(wanted, split_line(first, s)))
        separator = next(known, "\t" if path.suffix.lower() == ".tsv" else ",")
    lines.take_back([first])
    try:
        names = [name.strip() for name in next_record(lines, separator)]
    except (csv.Error, StopIteration) as error:
        if isinstance(error, csv.Error):
            raise ValueError(f"line {lines.number}, the header: {error}") from error
        names = []
    columns = find_columns(wanted, names, path.name)
    rows = csv_rows(lines, names, separator, is_path, columns.path)
    return OpenTable(f"CSV separated by {separator!r}", columns, names, rows)


def _open_json_lines(
    path: pathlib.Path, wanted: Columns, is_path: Callable[[str], bool]
) -> OpenTable:
    del is_path
    return _of_objects("JSON lines", path, wanted, _json_lines(path))


def _json_lines(path: pathlib.Path) -> Iterator[TableRow]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        if is_damaged(line):
            yield TableRow(f"line {number}", BadClipError("wrong_encoding", damage(line)))
            continue
        try:
            fields: Any = json.loads(line, object_pairs_hook=_once_each)
        except (ValueError, RecursionError) as error:
            fields = BadClipError("malformed_row", f"not a JSON object: {_short(error)}")
        yield TableRow(f"line {number}", _as_row(fields))


def _open_json(path: pathlib.Path, wanted: Columns, is_path: Callable[[str], bool]) -> OpenTable:
    try:
        content = json.loads(read_text(path), object_pairs_hook=_once_each)
    except RecursionError as error:
        raise ValueError(f"it is not JSON that can be read: {_short(error)}") from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # behind a first line that is whole
            return _open_json_lines(path, wanted, is_path)
        raise
    if isinstance(content, Mapping) and {"videos", "sentences"} <= content.keys():
        return _msr_vtt(content)
    if isinstance(content, Mapping) and list(content) == ["data"]:
        content = content["data"]
    if isinstance(content, list):
        rows = (TableRow(f"entry {i}", _as_row(entry)) for i, entry in enumerate(content, 1))
        return _of_objects("list of JSON objects", path, wanted, rows)
    if isinstance(content, Mapping) and any(map(is_path, content)):
        columns = Columns(motion="", aesthetic="", split="")
        named = (
            TableRow(f"entry {i}", {columns.path: name, columns.caption: captions})
            for i, (name, captions) in enumerate(content.items(), 1)
        )
        return OpenTable("JSON of captions by video", columns, ["video", "caption"], named)
    raise ValueError(f"it is none of the forms that are read: {JSON_FORMS}")


def _msr_vtt(content: Mapping[str, Any]) -> OpenTable:
    """One row a video, with its sentences in the order of `sen_id`."""
    captions: dict[str, list[str]] = {}
    try:
        for sentence in sorted(content["sentences"], key=lambda s: s["sen_id"]):
            captions.setdefault(sentence["video_id"], []).append(sentence["caption"])
        videos = [(video["video_id"], video.get("split")) for video in content["videos"]]
        listed = {name for name, _ in videos}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"it is not MSR-VTT's JSON: {_short(error)}; read is {JSON_FORMS}"
        ) from error
    if others := captions.keys() - listed:
        logging.warning("sentences of %d videos that are not listed are left out", len(others))
    columns = Columns(motion="", aesthetic="")
    rows = (
        TableRow(
            f"video {name}",
            {
                columns.path: f"{name}.mp4",
                columns.caption: captions.get(name, []),
                columns.split: split,
            },
        )
        for name, split in videos
    )
    return OpenTable("MSR-VTT's JSON", columns, ["video_id", "caption", "split"], rows)


def _open_lists(path: pathlib.Path, wanted: Columns, is_path: Callable[[str], bool]) -> OpenTable:
    del wanted, is_path
    here = {p.name.lower(): p for p in path.parent.iterdir()}
    videos = [here[name] for name in VIDEO_LISTS if name in here]
    captions = [here[name] for name in CAPTION_LISTS if name in here]
    if path.name.lower() not in VIDEO_LISTS + CAPTION_LISTS or len(videos) != 1:
        raise ValueError(f"a table in .txt is one of {', '.join(VIDEO_LISTS)}, alone in its folder")
    if len(captions) != 1:
        raise ValueError(
            f"{videos[0].name} needs one list of captions beside it, {' or '.join(CAPTION_LISTS)}; "
            f"there are {len(captions)}"
        )
    paths, texts = ([t.strip() for t in text_lines(read_text(p))] for p in (videos[0], captions[0]))
    while paths and not paths[-1]:
        paths.pop()
    while len(texts) > len(paths) and not texts[-1]:
        texts.pop()
    if len(paths) != len(texts):
        raise ValueError(
            f"{videos[0].name} has {len(paths)} lines and {captions[0].name} {len(texts)}; line by "
            "line they must belong together"
        )
    columns = Columns(motion="", aesthetic="", split="")
    rows = (
        TableRow(f"line {i}", {columns.path: video, columns.caption: text})
        for i, (video, text) in enumerate(zip(paths, texts, strict=True), 1)
    )
    form = f"{videos[0].name} and {captions[0].name}, line by line"
    return OpenTable(form, columns, ["video", "caption"], rows)


def _of_objects(
    form: str, path: pathlib.Path, wanted: Columns, rows: Iterator[TableRow]
) -> OpenTable:
    """A table whose columns are the names in its first rows."""
    head = list(itertools.islice(rows, HEAD_ROWS))
    names = dict.fromkeys(
        name for row in head if not isinstance(row.fields, BadClipError) for name in row.fields
    )
    bad = [row for row in head if isinstance(row.fields, BadClipError)]
    if bad and len(bad) == len(head):
        place, fields = bad[0]
        raise ValueError(f"none of its rows can be read; {place}: {getattr(fields, 'detail', '')}")
    columns = find_columns(wanted, list(names), path.name)
    return OpenTable(form, columns, list(names), itertools.chain(head, rows))


READERS: Mapping[str, Callable[[pathlib.Path, Columns, Callable[[str], bool]], OpenTable]] = {
    ".csv": _open_csv,
    ".tsv": _open_csv,
    ".jsonl": _open_json_lines,
    ".ndjson": _open_json_lines,
    ".json": _open_json,
    ".txt": _open_lists,
}


def _lines(path: pathlib.Path) -> Iterator[str]:
    number = 0
    with open_text(path) as file:
        try:
            while line := file.readline(MAX_ROW_BYTES):
                number += 1
                yield line
        except UnicodeDecodeError as error:  # not of UTF-8, whose damage costs its line alone
            raise ValueError(
                f"prepare.table={str(path)!r} is not whole in {error.encoding}, behind line "
                f"{number}: {error.reason}"
            ) from error


def _as_row(fields: Any) -> Mapping[str, Any] | BadClipError:
    if isinstance(fields, dict | BadClipError):
        return fields
    return BadClipError("malformed_row", "not a JSON object")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no name may stand twice: one of the two values would be lost."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"{next(n for n in names if names.count(n) > 1)[:80]!r} stands there twice"
        )
    return fields


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
