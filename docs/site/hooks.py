"""What the site takes from outside of docs/: the README, CONTRIBUTING.md, the configs' fields.

mkdocs calls the functions by their names (`hooks` in mkdocs.yml).
"""

import pathlib
import posixpath
import re
import sys
from typing import Any

from markdown import Extension, Markdown
from mkdocs.structure.files import File, Files

SITE = pathlib.Path(__file__).resolve().parent
DOCS, ROOT = SITE.parent, SITE.parent.parent
sys.path.insert(0, str(SITE))

from config_tables import config_tables  # noqa: E402

# File of the repository -> page of the site.
PAGES_FROM_OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
FIELDS = "<!-- fields of the configs -->"
RESULTS = "results/*"
_FENCE = re.compile(r"^(```.*?^```)$", re.M | re.S)
_LINK = re.compile(r"(!?)\[([^\]\[]*)\]\(([^)\s]+)\)")


class NoHtml(Extension):
    """Text that looks like HTML is text: docstrings say `<x_i, eps_j>`."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Take the readers of HTML out."""
        md.preprocessors.deregister("html_block")
        md.inlinePatterns.deregister("html")


def on_config(config: Any) -> Any:
    """List the pages of docs/results/ where the navigation says so; read no HTML."""
    config.markdown_extensions.append(NoHtml())
    found = sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / "results").glob("*.md"))
    config.nav = _with_results(config.nav, found)
    return config


def _with_results(nav: Any, found: list[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _with_results(part, found) for title, part in nav.items()}
    if isinstance(nav, list):
        parts = [found if part == RESULTS else [_with_results(part, found)] for part in nav]
        return [page for part in parts for page in part]
    return nav


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside of docs/."""
    for source, page in PAGES_FROM_OUTSIDE.items():
        content = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=moved_links(content, source, page)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Write the configs' fields where they are asked for, and mend links that lead out of docs/."""
    if FIELDS in markdown:
        markdown = markdown.replace(FIELDS, config_tables(ROOT / "configs"))
    markdown = bars_of_code(markdown)
    name = page.file.src_uri
    if name in PAGES_FROM_OUTSIDE.values():
        return markdown
    return moved_links(markdown, f"docs/{name}", name)


def bars_of_code(text: str) -> str:
    """Return a page whose tables say `a|b` in code: GitHub wants a backslash, mkdocs shows it."""

    def row(found: re.Match[str]) -> str:
        return re.sub("`[^`]*`", lambda code: code[0].replace("\\|", "|"), found[0])

    return re.sub(r"^\|.*\|$", row, text, flags=re.M)


def moved_links(text: str, source: str, page: str) -> str:
    """Return a page's text with links that are right on the site.

    Args:
        text: Markdown.
        source: the file that it stands in, from the repository's root.
        page: the page that it becomes, from the site's root.

    Returns:
        The text; links to files of the repository that the site lacks are their bare text.
    """

    def moved(found: re.Match[str]) -> str:
        mark, label, target = found.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or ":" in path:
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        there = PAGES_FROM_OUTSIDE.get(place, place.removeprefix("docs/"))
        if place not in PAGES_FROM_OUTSIDE and not (
            place.startswith("docs/") and (ROOT / place).is_file()
        ):
            exists = (ROOT / place).exists()
            return label if exists else found[0]  # what does not exist is mkdocs' to complain of
        link = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"{mark}[{label}]({link}{hash_sign}{anchor})"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(moved, part) for part in parts)
