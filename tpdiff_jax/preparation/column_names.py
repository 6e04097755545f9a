"""Which column of a table is which: by the name in the config, or by the names that others use.

Names are compared without case and blanks around them. Only where a name of the config is left as
it is by default and the table lacks it are the names of other trainers looked for; the log then
says which was taken.
"""

import dataclasses
from collections.abc import Sequence

from absl import logging


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of a table's columns. The defaults are OpenVid-1M's; only `path` must exist.

    "" is a column that the table does not have.
    """

    path: str = "video"
    caption: str = "caption"
    motion: str = "motion score"
    aesthetic: str = "aesthetic score"
    split: str = "split"


OTHER_NAMES = {
    "path": (
        *("file_name", "video_file_name", "video_path", "video_file", "media_path", "file_path"),
        *("path", "videos"),
    ),
    "caption": ("captions", "text", "prompt", "prompts", "cap"),
}
"""Names that other trainers document, by field of `Columns`."""
SHOWN_NAMES = 40


def find_columns(wanted: Columns, names: Sequence[str], table: str) -> Columns:
    """Return the table's own names of the columns; "" for one that it does not have.

    Args:
        wanted: names as the config has them.
        names: of the table's columns.
        table: its name, for messages.

    Raises:
        ValueError: when there is no column of paths, a name is there twice, or several could be
            meant.
    """
    fields = {
        field.name: _find(field.name, getattr(wanted, field.name), str(field.default), names, table)
        for field in dataclasses.fields(Columns)
    }
    found = Columns(**fields)
    if not found.path:
        raise ValueError(
            f"prepare.path_column={wanted.path!r} is no column of {table}; it has: "
            f"{shown_names(names)}"
        )
    return found


def is_path_column(wanted: Columns, names: Sequence[str]) -> bool:
    """Whether one of these names is that of the column of paths."""
    known = {wanted.path.strip().lower()}
    known |= set(OTHER_NAMES["path"]) if wanted.path == Columns().path else set()
    return any(name.strip().lower() in known for name in names)


def shown_names(names: Sequence[str]) -> str:
    """Return names for a message, as many as fit."""
    return ", ".join(map(str, names[:SHOWN_NAMES]))[:500] or "none"


def _find(field: str, wanted: str, default: str, names: Sequence[str], table: str) -> str:
    column = f"prepare.{field}_column"
    if not wanted.strip():  # columns without a name are those of an index, or of trailing commas
        return ""
    if wanted in names:
        found = [wanted] * list(names).count(wanted)
    else:
        found = [name for name in names if name.strip().lower() == wanted.strip().lower()]
    if not found and wanted == default:
        others = OTHER_NAMES.get(field, ())
        found = [name for name in names if name.strip().lower() in others]
        if len(found) == 1:
            logging.warning(
                "%s=%r is no column of %s; it has: %s. Read is %r",
                *(column, wanted, table, shown_names(names), found[0]),
            )
    if len(set(found)) > 1:
        could = " or ".join(map(repr, found))
        raise ValueError(f"{column}={wanted!r} could be {could} of {table}: name one")
    if len(found) > 1:
        there = shown_names(names)
        raise ValueError(f"{column}={wanted!r} is twice in {table}; it has: {there}")
    return found[0] if found else ""
