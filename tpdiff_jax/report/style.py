"""What every figure looks like, on pages and in files: colours, dashes, markers, sizes.

The seven line colours go out from Okabe and Ito's (https://jfly.uni-koeln.de/color/), which readers
with any common colour blindness tell apart. The light set is darkened until each has the
contrast of 3 to white that WCAG 2.2 asks of drawings (1.4.11), and its hues are moved apart
again; the dark set holds lighter tones. Since colours alone never suffice, lines also differ in
dashes and markers.
"""

import contextlib
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tpdiff_jax.files.durable import writing

# Pages replace these by variables of the same names, so that no two may be equal.
LIGHT = {
    "paper": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1b1f24",
    "soft": "#5b6572",
    "line": "#dfe3e8",
    "c0": "#0072b2",
    "c1": "#b43600",
    "c2": "#139e68",
    "c3": "#cf659a",
    "c4": "#de6c00",
    "c5": "#3f80ee",
    "c6": "#333a42",
    "good": "#14866d",
    "fair": "#b7791f",
    "poor": "#b3402f",
    "link": "#0b62a8",
}
DARK = {
    "paper": "#14171b",
    "panel": "#1d2127",
    "ink": "#e8ebef",
    "soft": "#9aa4b0",
    "line": "#323943",
    "c0": "#58a6e0",
    "c1": "#f2763a",
    "c2": "#2fcb9b",
    "c3": "#d98cb8",
    "c4": "#ffd866",
    "c5": "#8fd6ff",
    "c6": "#ffffff",
    "good": "#4fd1ab",
    "fair": "#f0be62",
    "poor": "#ff8d7c",
    "link": "#7cc0f5",
}
LINE_COLOURS = tuple(colour for name, colour in LIGHT.items() if name[0] == "c")
_DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (2.5, 1.2)), (0, (7, 1.5, 1.5, 1.5)))
_MARKERS = "osD^vPX<>"
# name of a reference -> its dashes and colour
REFERENCES: dict[str, tuple[Any, str]] = {
    "ceiling": ((0, (5, 3)), LIGHT["good"]),
    "frozen": ((0, (1.5, 2)), LIGHT["poor"]),
    "shuffled": ((0, (6, 2, 1.5, 2)), LIGHT["fair"]),
}
FONT_SIZE = 12.0
"""Of the smallest text in a figure, in its own pixels."""
_SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": LIGHT["line"],
    "axes.grid": True,
    "axes.labelcolor": LIGHT["soft"],
    "axes.labelsize": FONT_SIZE,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same layout on every machine
    "font.size": FONT_SIZE,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 1.0,
    "legend.fontsize": FONT_SIZE,
    "legend.frameon": False,
    "legend.labelcolor": LIGHT["soft"],
    "lines.linewidth": 1.8,
    "lines.markersize": 4.0,
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "tpdiff_jax",  # names inside the file repeat from run to run
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "xtick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["soft"],
    "xtick.labelsize": FONT_SIZE,
    "ytick.color": LIGHT["line"],
    "ytick.labelcolor": LIGHT["soft"],
    "ytick.labelsize": FONT_SIZE,
}
_PIXELS_AN_INCH = 72
_PIXELS_A_LETTER = 6.7  # of a legend: what decides how many columns it has
_PIXELS_A_KEY = 36.0  # the piece of line before a name and the space behind it
_LOCK = threading.RLock()


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Every figure is made and written inside this block, which gives it the common style.

    Matplotlib keeps such settings for the whole process, so that one thread draws at a time.
    """
    with _LOCK, matplotlib.rc_context(_SETTINGS):
        yield


def line_style(index: int) -> dict[str, Any]:
    """Return what tells line `index` from the others: colour, dashes and marker.

    The first 28 lines differ in colour or dashes; two of one colour also differ in their markers.
    """
    colours = len(LINE_COLOURS)
    return {
        "color": LINE_COLOURS[index % colours],
        "linestyle": _DASHES[(index % colours + index // colours) % len(_DASHES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def draw_level(panel: Axes, name: str, value: float, label: str) -> None:
    """Draw the horizontal line of a reference.

    Args:
        panel: to draw on.
        name: a key of `REFERENCES`: `ceiling`, `frozen` or `shuffled`.
        value: its height, in units of the vertical axis.
        label: its name in the legend.
    """
    dashes, colour = REFERENCES[name]
    panel.axhline(value, color=colour, linewidth=1.4, linestyle=dashes, label=label)


def draw_legend(figure: Figure, panel: Axes) -> None:
    """Put the names of a panel's lines above the whole figure, where any were given."""
    handles, labels = panel.get_legend_handles_labels()
    if not handles:
        return
    labels = [plain(label) for label in labels]
    room = _PIXELS_A_KEY + _PIXELS_A_LETTER * max(map(len, labels))
    columns = max(1, int(figure.get_figwidth() * _PIXELS_AN_INCH / room))
    # Matplotlib fills column by column; names are read row by row.
    order = [i for column in range(columns) for i in range(column, len(labels), columns)]
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside upper left",
        ncols=columns,
        handlelength=2.2,
        borderpad=0.0,
        columnspacing=1.0,
    )


def save(figure: Figure, path: pathlib.Path) -> None:
    """Write a figure as PNG and as SVG, without the date: equal figures give equal files.

    Args:
        figure: made inside `drawing`.
        path: file without suffix.
    """
    for suffix, options in ((".png", {"dpi": 110}), (".svg", {"metadata": {"Date": None}})):
        with writing(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, format=suffix[1:], **options)


def plain(text: Any) -> str:
    """Return text that XML can hold: control characters and lone surrogates become `?`."""
    return "".join(c if c.isprintable() else "?" for c in str(text))
