"""CSV, read strictly: a damaged line costs itself and no other, and is named.

A quote that opens and never closes would swallow the lines behind it, up to the next quote of the
file. Such a row ends where a line follows that is a row of its own; reading goes on behind the
line on which it began.
"""

import collections
import csv
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.files.text_files import damage, is_damaged

MAX_ROW_BYTES = 2**24
SEPARATORS = (",", "\t", ";", "|")
_UNCLOSED = "a quote opens and does not close"


class TableRow(NamedTuple):
    """A row of a table, as named fields or why there is none.

    Attributes:
        place: where it stands, such as "line 7".
        fields: values by name of their column.
    """

    place: str
    fields: Mapping[str, Any] | BadClipError


class NumberedLines:
    """Lines of a file, which can be taken back."""

    def __init__(self, lines: Iterator[str]) -> None:
        """Read from `lines`, with their ends."""
        self._lines, self._back = lines, collections.deque[str]()
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._lines)
        self.number += 1
        return line

    def take_back(self, lines: list[str]) -> None:
        """Give lines back that came last, to be read again."""
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)


def split_line(line: str, separator: str) -> list[str]:
    """Return the fields of one line by itself, whatever is wrong with its quotes."""
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def csv_rows(
    lines: NumberedLines,
    names: list[str],
    separator: str,
    is_path: Callable[[str], bool],
    path: str,
) -> Iterator[TableRow]:
    """Yield the rows behind the header.

    Args:
        lines: of the file, the header taken off.
        names: of the columns.
        separator: between fields.
        is_path: whether a text is a video's path, by which a row is known.
        path: name of the column of paths.
    """
    place = names.index(path)

    def is_row(line: str) -> bool:
        values = split_line(line, separator)
        return len(values) == len(names) and is_path(values[place].strip())

    # The library's own limit (128 KiB a field) would hide which caption was too long.
    before = csv.field_size_limit(MAX_ROW_BYTES)
    try:
        while True:
            number = lines.number + 1
            try:
                values = next_record(lines, separator, is_row)
            except StopIteration:
                return
            except csv.Error as error:
                yield TableRow(f"line {number}", BadClipError("malformed_row", str(error)))
                continue
            if separator.join(values).strip():  # not a line of blanks alone
                yield TableRow(f"line {number}", named_fields(values, names))
    finally:
        csv.field_size_limit(before)


def named_fields(values: list[str], names: list[str]) -> Mapping[str, Any] | BadClipError:
    """Return a row's fields by name, or why it has none."""
    if any(map(is_damaged, values)):
        return BadClipError("wrong_encoding", damage(next(filter(is_damaged, values))))
    if len(values) != len(names):
        return BadClipError("malformed_row", f"{len(values)} fields, header {len(names)}")
    return dict(zip(names, values, strict=True))


def next_record(
    lines: NumberedLines, separator: str, is_row: Callable[[str], bool] = lambda line: False
) -> list[str]:
    """Return the fields of the next row, which has several lines where a quoted field has.

    Args:
        lines: of the file; after an error, the next one is that behind the row's first.
        separator: between fields.
        is_row: whether a line inside of quotes is a row of its own.

    Raises:
        csv.Error: for a quote that does not close, or text behind one that does.
        StopIteration: behind the last row.
    """
    taken: list[str] = []

    def feed() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            if len(taken) > 1 and is_row(line):
                raise csv.Error(_UNCLOSED)
            yield line

    try:
        return next(csv.reader(feed(), delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        lines.take_back(taken[1:])
        text = str(error)
        if text == "unexpected end of data":
            text = _UNCLOSED
        elif "expected after" in text:
            text = "text behind a closing quote"
        raise csv.Error(text) from error
