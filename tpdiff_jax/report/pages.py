"""Every page comes from a template here: one file, no script, nothing fetched from anywhere.

Templates escape all that they are given. Only drawings are markup, and only `svg.inline_svg` makes
those.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.report.style import DARK, LIGHT

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,  # a name that nothing defines is an error, not a gap
    trim_blocks=True,
    lstrip_blocks=True,
)


PAPER_URL = "https://arxiv.org/abs/2503.09566"
_MAX_NAME_LETTERS = 16
_FIGURE = re.compile(r"[<>~]?[-+\N{MINUS SIGN}]?\.?[0-9]")


class Section(NamedTuple):
    """A part of a page with its heading.

    Attributes:
        key: its name in links: lower-case letters and dashes.
        title: heading.
        template: file name of the template that shows it.
        content: what the template shows, as `content`; a section with nothing in it is left out.
    """

    key: str
    title: str
    template: str
    content: Any


class Table(NamedTuple):
    """Texts; the first column holds names.

    Attributes:
        header: names of the columns.
        rows: cells, as many as the header has.
        caption: what the table tells; no other of the page has the same.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    @property
    def text_columns(self) -> list[int]:
        """Columns without a figure in any cell, which are read from the left."""
        columns = enumerate(zip(*self.rows, strict=True))
        return [i for i, cells in columns if not any(_FIGURE.match(cell) for cell in cells)]

    @property
    def name_letters(self) -> int:
        """Room for the first column: its longest name, where that is not much too long."""
        return min(_MAX_NAME_LETTERS, max((len(row[0]) for row in self.rows), default=0))


class Fact(NamedTuple):
    """A name, its value, and small print behind it; code is shown letter by letter."""

    name: str
    value: str
    small: str = ""
    is_code: bool = False


class Note(NamedTuple):
    """A remark before the sections; a bad one says that something failed."""

    text: str
    is_bad: bool = False


def render_page(
    *,
    title: str,
    heading: str,
    subtitle: str,
    facts: Sequence[Fact] = (),
    origin: Sequence[Fact] = (),
    notes: Sequence[Note] = (),
    sections: Sequence[Section],
) -> str:
    """Return a whole page as HTML.

    Args:
        title: of the browser's window.
        heading: of the page.
        subtitle: below the heading.
        facts: head of the page.
        origin: what made it, see `origin.origin_facts`.
        notes: before the sections.
        sections: the parts; those without content are left out.
    """
    return _TEMPLATES.get_template("page.html").render(
        title=title,
        heading=heading,
        subtitle=subtitle,
        facts=facts,
        origin=origin,
        paper=PAPER_URL,
        notes=notes,
        sections=[section for section in sections if section.content],
        light=LIGHT,
        dark=DARK,
    )


def write_page(path: Path, page: str) -> None:
    """Write a page at once or not at all; what UTF-8 cannot hold becomes `?`."""
    write_durably(path, page.encode("utf-8", errors="replace"))


def write_page_beside(path: Path, render: Callable[[Mapping[str, Any]], str]) -> Path:
    """Write the page of a JSON file beside it and return the page's path.

    Args:
        path: of the JSON file.
        render: its content -> the page.
    """
    page = path.with_suffix(".html")
    write_page(page, render(json.loads(path.read_text())))
    return page
