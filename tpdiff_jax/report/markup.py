"""Numbers and tables as HTML. Everything that comes from a file passes through `escape`."""

import html
import math
from collections.abc import Sequence
from typing import Any, TypeGuard

MISSING = "&ndash;"
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def escape(value: Any) -> str:
    """Text that is safe inside elements and quoted attributes."""
    return html.escape(str(value), quote=True)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether `value` is a finite int or float (a bool is neither)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def figure(value: Any, digits: int = 4) -> str:
    """A number to `digits` significant places, without exponents where they can be avoided."""
    if not is_number(value):
        return MISSING if value is None or isinstance(value, float) else escape(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "&thinsp;")
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def with_prefix(value: Any, unit: str = "") -> str:
    """A number with three places and a decimal prefix: 1.23 TFLOP."""
    if not is_number(value):
        return MISSING
    power = 0 if value == 0 else int(math.log10(abs(value)) // 3)
    power = min(max(power, 0), len(_PREFIXES) - 1)
    return f"{value / 1000**power:.3g} {_PREFIXES[power]}{unit}".strip()


def seconds(value: Any) -> str:
    """A duration: 123 ms, 4.56 s, 12 min 5 s or 2 h 7 min."""
    if not is_number(value):
        return MISSING
    if value < 1:
        return f"{1000 * value:.3g} ms"
    if value < 60:
        return f"{value:.3g} s"
    minutes, s = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {s} s"


def percent(value: Any) -> str:
    """A share as per cent."""
    return f"{100 * value:.3g} %" if is_number(value) else MISSING


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of ready HTML cells; the first column holds names, the others figures.

    Args:
        headers: column titles, HTML.
        rows: cells, HTML.
        kind: CSS class.
    """
    head = "".join(f"<th scope='col'>{header}</th>" for header in headers)
    body = "".join(
        "<tr>"
        + f"<th scope='row'>{row[0]}</th>"
        + "".join(f"<td>{cell}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class='scroll'><table class='{kind}'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(items: Sequence[tuple[str, str]]) -> str:
    """Name and value pairs, both HTML, as a definition list."""
    pairs = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in items)
    return f"<dl class='facts'>{pairs}</dl>"
