"""A matplotlib figure as a drawing inside a page.

Matplotlib's file is made smaller (no metadata, coordinates to a tenth of a pixel), loses what the
page says better (fonts, background), follows the page's light or dark colours, and gets names
that cannot meet those of another drawing on the page.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tpdiff_jax.report.style import FONT_SIZE, LIGHT, drawing, plain

_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
_COLOUR = re.compile("|".join(LIGHT.values()))
_NUMBER = re.compile(r"-?\d+\.\d+")
_NAME = re.compile(r"#([^)]+)")
# What browsers assume anyway, and fonts, which the page chooses.
_NOISE = re.compile(
    r"(font-family: [^;]*|stroke-dashoffset: 0|stroke-linejoin: miter|stroke-linecap: square)"
    r"(; |$)"
)
_MARK = "mark-"
LEAST_PIXELS = 11.0
"""Height of the smallest text of a drawing on a screen."""
_NARROW_SCREEN = 358.0  # room for a drawing on a phone 390 wide, whose texts then need no scrolling


class Chart(NamedTuple):
    """A drawing and what stands above it.

    Attributes:
        title: heading.
        note: small print behind the title.
        svg: the drawing.
        columns: of the page's three, where there is room for them.
    """

    title: str
    note: str
    svg: Markup
    columns: int = 1

    @property
    def scrolls(self) -> bool:
        """Whether a narrow screen shows only a part of it at a time: its texts stay legible."""
        return self.columns > 1


def mark(name: str) -> str:
    """Return the `gid` of an artist that keeps `name` as its class on the page."""
    return _MARK + name


def inline_svg(
    figure: Figure,
    *,
    key: str,
    title: str,
    description: str,
    tips: Mapping[str, Sequence[str]] | None = None,
) -> Markup:
    """Return the `<svg>` element of a figure.

    Args:
        figure: what to draw.
        key: a name that no other drawing of the page has: letters, digits and dashes.
        title: what readers hear who do not see the drawing.
        description: the same at length.
        tips: class of a marked artist -> a text for each of its dots, shown on pointing at one.

    Returns:
        The element, safe: matplotlib's own, with every text escaped.

    Raises:
        ValueError: the key has other characters.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", key):
        raise ValueError(f"key: {key!r} must be lower-case letters, digits and dashes")
    root = ElementTree.fromstring(_drawn(figure))
    for node in list(root):
        if _local(node.tag) in ("metadata", "defs"):
            root.remove(node)
    for name, texts in (tips or {}).items():
        _add_tips(root, _MARK + name, texts)
    names = _used_names(root)
    for node in root.iter():
        _clean(node, key, names)
    viewbox = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib |= {"viewBox": viewbox, "role": "img", "aria-label": plain(title)}
    width = float(viewbox.split()[2])
    if width > _NARROW_SCREEN:
        root.set("style", f"min-width: {math.ceil(width * LEAST_PIXELS / FONT_SIZE)}px")
    root.set("aria-describedby", f"{key}-text")
    about = ElementTree.Element("desc", {"id": f"{key}-text"})
    about.text = plain(description)
    root.insert(0, about)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _drawn(figure: Figure) -> bytes:
    """The SVG file of a figure without background, drawn once where savefig draws twice."""
    buffer = io.BytesIO()
    patches = [figure.patch, *(panel.patch for panel in figure.axes)]
    are_shown = [patch.get_visible() for patch in patches]
    with drawing():
        for patch in patches:
            patch.set_visible(False)
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
        for patch, is_shown in zip(patches, are_shown, strict=True):
            patch.set_visible(is_shown)
    return buffer.getvalue()


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _add_tips(root: ElementTree.Element, name: str, texts: Sequence[str]) -> None:
    groups = [node for node in root.iter() if node.get("id") == name]
    dots = [dot for group in groups for dot in _shapes(group)]
    for dot, text in zip(dots, texts, strict=True):
        ElementTree.SubElement(dot, "title").text = plain(text)


def _shapes(group: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The dots of a line, or the one path of a bar."""
    dots = [node for node in group.iter() if _local(node.tag) == "use"]
    return iter(dots or [node for node in group if _local(node.tag) == "path"])


def _used_names(root: ElementTree.Element) -> dict[str, str]:
    """Names that some element points to, numbered in their order."""
    values = [
        value
        for node in root.iter()
        for name, value in node.attrib.items()
        if _local(name) == "href"
    ]
    found = [match for value in values for match in _NAME.findall(value)]
    return {name: str(i) for i, name in enumerate(dict.fromkeys(found))}


def _clean(node: ElementTree.Element, key: str, names: Mapping[str, str]) -> None:
    node.tag = _local(node.tag)
    node.tail = None
    if not (node.text or "").strip():
        node.text = None
    old = dict(node.attrib)
    node.attrib.clear()
    for name, value in old.items():
        if name == "id" and value.startswith(_MARK):
            node.set("class", value.removeprefix(_MARK))
        elif name == "id" and value in names:
            node.set("id", f"{key}-{names[value]}")
        elif _local(name) == "href":
            node.set("href", f"#{key}-{names[value[1:]]}")
        elif name == "transform" and value.startswith("rotate(-0 "):
            continue  # matplotlib turns level text by nothing
        elif name not in ("id", "clip-path"):  # no chart draws outside its axes
            node.set(name, _short(value))


def _short(value: str) -> str:
    value = _COLOUR.sub(lambda m: _VARIABLES[m[0]], _NOISE.sub("", value).rstrip("; "))
    value = re.sub(r"\s*([MLCQZz])\s*", r"\1", value) if value[:1] == "M" else value
    return _NUMBER.sub(lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), value)
