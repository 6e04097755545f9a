"""Reading captions: a table of one of several forms, or text files beside the videos.

Columns are found by name. A row that cannot be used is skipped and listed with its reason
(`bad_clips.REASONS`) and place; a table without the named columns is the user's mistake and raises.
What is found, and how many videos have a caption, is in the log.
"""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from tpdiff_jax.checks import naming
from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.preparation.beside_videos import find_tables, sidecar_rows
from tpdiff_jax.preparation.clip_source import SkippedClip, check_contained
from tpdiff_jax.preparation.column_names import Columns, shown_names
from tpdiff_jax.preparation.folder_splits import with_folder_splits
from tpdiff_jax.preparation.folder_walk import FoundFiles, is_video_name, walk_folder
from tpdiff_jax.preparation.row_checks import RowReader, SourceRow, SourceRules, Sources
from tpdiff_jax.preparation.table_files import OpenTable, open_table

SIDECAR = "sidecar"
"""In place of a table: text files beside the videos, whatever else lies there."""


def read_sources(
    root: pathlib.Path,
    table: pathlib.Path | None,
    columns: Columns,
    *,
    max_caption_bytes: int,
    also_allowed: Sequence[str] = (),
    captions_per_video: int = 1,
    needs_captions: bool = False,
) -> Sources:
    """Read and check every row.

    Args:
        root: folder of the videos; the table's paths are relative to it, or else to the table's
            own folder.
        table: see `table_files`; None looks for one in the folder (`beside_videos`), and takes
            every video with the text file beside it where there is none; "sidecar" does so anyway.
        columns: names of the columns; see `column_names`.
        max_caption_bytes: longer captions skip their row.
        also_allowed: folders beside `root` that paths and links may lead to.
        captions_per_video: so many captions of a video are kept.
        needs_captions: a video without a caption is bad, and none with one an error.

    Returns:
        Usable rows and skipped ones, in the table's order.

    Raises:
        ValueError: when folder or table do not exist, the table has no such column, or there is no
            caption where they are needed.
    """
    for field, folder in (("source", str(root)), *(("also_allowed", f) for f in also_allowed)):
        if not pathlib.Path(folder).is_dir():
            raise ValueError(f"prepare.{field}={folder!r} is not a folder")
    rules = SourceRules(
        max_caption_bytes=max_caption_bytes,
        also_allowed=tuple(pathlib.Path(folder).resolve() for folder in also_allowed),
        captions_per_video=captions_per_video,
        needs_captions=needs_captions,
    )
    root, found = root.resolve(), None
    if table is None or str(table) == SIDECAR:
        found = walk_folder(root, rules.also_allowed)
        rows, links = _rows_of_folder(root, found, columns, rules, table is None), found.links_out
    else:
        rows, links = _rows_of_table(root, table, columns, rules, (".",)), []
    sources = Sources([], [SkippedClip(path=link, reason="outside_root") for link in links])
    reader = RowReader(root, rules, sources)
    for row in rows:
        reader.add(row)
    reader.tell()
    if found is not None:
        _tell_rest(found, sources)
    return sources._replace(clips=with_folder_splits(sources.clips))


def _rows_of_table(
    root: pathlib.Path,
    table: pathlib.Path,
    columns: Columns,
    rules: SourceRules,
    folders: tuple[str, ...],
) -> Iterator[SourceRow]:
    """Rows of one table, opened at once; its own folder comes behind `folders`."""
    opened = open_table(table, columns, _path_test(root, rules))
    _tell_table(table, opened, columns, rules.needs_captions)
    own = table.resolve().parent
    name = own.relative_to(root) if own.is_relative_to(root) else own
    folders = tuple(dict.fromkeys((*folders, name.as_posix())))
    return (SourceRow(row, opened.columns, folders) for row in opened.rows)


def _tell_table(
    table: pathlib.Path, opened: OpenTable, wanted: Columns, needs_captions: bool
) -> None:
    """Log what is read of a table; captions that are needed and have no column are an error."""
    read = {name: column for name, column in vars(opened.columns).items() if column}
    logging.info(
        "table %s: %s; columns read: %s; there are: %s",
        *(table, opened.form, ", ".join(f"{c!r} as {n}" for n, c in read.items())),
        shown_names(opened.names),
    )
    if not opened.columns.caption and (wanted.caption or needs_captions):
        text = (
            f"prepare.caption_column={wanted.caption!r} is no column of {table.name}; it has: "
            f"{shown_names(opened.names)}"
        )
        if needs_captions:
            raise ValueError(f"{text}. prepare.text_encoder needs captions")
        logging.warning("%s. Videos have no caption", text)


def _path_test(root: pathlib.Path, rules: SourceRules) -> Any:
    def is_path(text: str) -> bool:
        if is_video_name(text):
            return True
        try:
            return bool(check_contained(root, text, rules.also_allowed))
        except BadClipError:
            return False

    return is_path


def _rows_of_folder(
    root: pathlib.Path,
    found: FoundFiles,
    columns: Columns,
    rules: SourceRules,
    takes_tables: bool,
) -> Iterator[SourceRow]:
    """Rows of the tables that lie in the folder, or of the videos with the texts beside them."""
    if found.left_out:
        logging.info(
            "%d hidden files and system folders are left out, such as %s",
            *(len(found.left_out), ", ".join(found.left_out[:3])),
        )
    tables = find_tables(found.files) if takes_tables else []
    if not tables:
        logging.info("no table: every video, with the text file beside it as its caption")
        rows = sidecar_rows(
            *(root, found.files, Columns(), rules.max_caption_bytes, rules.also_allowed)
        )
        return (SourceRow(row, Columns(), (".",)) for row in rows)
    logging.info(
        "prepare.table='': found and read is %s; prepare.table='sidecar' reads text files instead",
        ", ".join(tables),
    )
    parts = []
    for name in tables:
        own = pathlib.PurePosixPath(name).parent.as_posix()
        folders = tuple(dict.fromkeys((own, ".")))
        with naming("found in prepare.source (prepare.table='sidecar' takes no table)"):
            parts.append(_rows_of_table(root, root / name, columns, rules, folders))
    return itertools.chain(*parts)


def _tell_rest(found: FoundFiles, sources: Sources) -> None:
    """Say which videos of the folder its tables do not name."""
    clips, skipped = sources
    named = {clip.path for clip in clips} | {clip.path for clip in skipped}
    if rest := [path for path in found.videos if path not in named]:
        logging.warning("%d videos are in no row of the table, such as %s", len(rest), rest[0])
