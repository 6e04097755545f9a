"""The frame of every page: one file, no script, nothing fetched from anywhere."""

from pathlib import Path

from tpdiff_jax.report.markup import escape

_STYLE_SHEET = Path(__file__).with_name("report.css")


def page_shell(
    *,
    title: str,
    heading: str,
    subtitle: str,
    facts: str,
    sections: list[tuple[str, str, str]],
    notes: str,
) -> str:
    """A whole page.

    Args:
        title: of the browser's window, text.
        heading: text.
        subtitle: text.
        facts: head of the page, HTML.
        sections: key, title and HTML of each; empty ones are left out.
        notes: before the sections, HTML.
    """
    shown = [section for section in sections if section[2]]
    links = "".join(f"<a href='#{key}'>{name}</a>" for key, name, _ in shown)
    body = "".join(
        f"<section id='{key}'><h2>{name}</h2>{content}</section>" for key, name, content in shown
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta name='color-scheme' content='light dark'>"
        f"<title>{escape(title)}</title><style>{_STYLE_SHEET.read_text()}</style></head><body>"
        f"<header><h1>{escape(heading)}</h1>"
        f"<p class='subtitle'>{escape(subtitle)}</p>{facts}</header>"
        f"<nav>{links}</nav><main>{notes}{body}</main>"
        "<footer>Written by tpdiff_jax; the method is TPDiff (arXiv 2503.09566).</footer>"
        "</body></html>"
    )
