"""Text files as people save them: the one reader of tables, JSON, prompts and captions.

UTF-8 with or without a byte-order mark, and UTF-16 or UTF-32 with one, are read. Anything else is
refused with the line and the encoding that it may be: no byte is replaced or dropped in silence.
A line ends at a line feed or carriage return and nowhere else: form feeds and Unicode's line
separators belong to the text.
"""

import codecs
import pathlib
import re
import unicodedata
from typing import TextIO

_MARKS = (  # UTF-32's first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3", "an SQLite database"),
)
_OTHERS = ("shift_jis", "gb18030", "euc_kr", "big5", "windows-1251")
_LINE_END = re.compile(r"\r\n|\n|\r")
_ESCAPED = re.compile("[\udc80-\udcff]")
_LONE_HIGH_BYTE = re.compile(rb"[\x00-\x7f][\x80-\xff](?=[\x00-\x7f])")
_JOINERS = "\u200c\u200d"  # ZWNJ parts letters of Persian words, ZWJ makes one emoji of several
_HEAD_BYTES = 4096
ALLOWED = "allowed: UTF-8, with or without a byte-order mark, or UTF-16 with one"


def text_encoding(head: bytes) -> str:
    """Name the encoding of a text file by its first bytes.

    Args:
        head: the first bytes, some thousands where there are as many.

    Returns:
        A name that Python knows, which drops the byte-order mark.

    Raises:
        ValueError: for files that are no text, or UTF-16 without a byte-order mark.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    for magic, what in _NO_TEXT:
        if head.startswith(magic):
            raise ValueError(f"it is {what}, no text; {ALLOWED}")
    for first, name in ((1, "UTF-16-LE"), (0, "UTF-16-BE")):
        if len(head) > 3 and 10 * head[first::2].count(0) > 3 * len(head[first::2]):
            raise ValueError(f"it looks like {name} without a byte-order mark; {ALLOWED}")
    return "utf-8"


def decode_text(content: bytes) -> str:
    """Read the bytes of a whole text file.

    Args:
        content: all bytes.

    Returns:
        The text, without a byte-order mark; line ends as they are.

    Raises:
        ValueError: for other encodings, with line and byte and what it may be.
    """
    encoding = text_encoding(content[:_HEAD_BYTES])
    if encoding != "utf-8-sig" and any(content == mark for mark, _ in _MARKS):
        raise ValueError(f"it is not UTF-8 but the mark of {encoding} alone; {ALLOWED}")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + content[: error.start].count(b"\n")
        byte = f"line {line}, byte 0x{content[error.start]:02x}"
        if not encoding.startswith("utf-8"):
            raise ValueError(f"it is not {encoding}: {byte}; {ALLOWED}") from error
        raise ValueError(
            f"it is not UTF-8: {byte}; perhaps {guess_encoding(content)}; {ALLOWED}"
        ) from error


def guess_encoding(content: bytes) -> str:
    """Name what bytes that are no UTF-8 may be, for a message; nothing is read by a guess."""
    if re.search(rb"[\x80-\xff]{2}", content) is None or _LONE_HIGH_BYTE.search(content):
        return "windows-1252"
    return " or ".join(name for name in _OTHERS if _can_be(content, name)) or "windows-1252"


def _can_be(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def read_text(path: pathlib.Path) -> str:
    """Read a whole text file.

    Raises:
        ValueError: naming the file, for other encodings; see `decode_text`.
        OSError: when it cannot be read.
    """
    try:
        return decode_text(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as text: {error}") from error


def open_text(path: pathlib.Path) -> TextIO:
    """Open a text file to be read line by line; line ends stay.

    Bytes that are no UTF-8 come as characters that `is_damaged` finds, so that one line of many
    can be left out by name. UTF-16 and UTF-32 raise UnicodeDecodeError, a ValueError.

    Raises:
        ValueError: naming the file, when its first bytes are of another kind of file.
        OSError: when it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    try:
        encoding = text_encoding(head)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as text: {error}") from error
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return path.open(encoding=encoding, errors=errors, newline="")


def is_damaged(text: str) -> bool:
    """Whether text from `open_text` holds bytes that are none of its encoding."""
    return not text.isascii() and _ESCAPED.search(text) is not None


def damage(text: str) -> str:
    """Say what bytes that `is_damaged` has found may be."""
    found = text.encode("utf-8", "surrogateescape")
    return f"it is not UTF-8; perhaps {guess_encoding(found)}"


def clean_text(text: str) -> str:
    """Return what a text encoder reads of a caption or prompt.

    On one line, without control or invisible formatting characters; those that join and part
    letters are a part of the text.
    """
    # Cc control, Cf invisible formatting (direction overrides), Cs lone surrogates.
    kept = (" " if c.isspace() else c for c in text)
    kept = (c for c in kept if c in _JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return " ".join("".join(kept).split())


def text_lines(text: str) -> list[str]:
    """Split at line feeds and carriage returns alone; a last line may end with one."""
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]
