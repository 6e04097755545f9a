"""Line and bar charts, drawn by matplotlib and coloured by the page's style sheet.

Drawings instead of pictures keep the report one small file whose text can be searched, and sharp
at any size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from tpdiff_jax.report.formats import figure, tick_text
from tpdiff_jax.report.style import (
    LINE_COLOURS,
    draw_legend,
    draw_level,
    drawing,
    line_style,
    plain,
)
from tpdiff_jax.report.svg import Chart, inline_svg, mark

SMALL = (340.0, 220.0)
TWO_COLUMNS = (710.0, 235.0)
WIDE = (1040.0, 300.0)
_COLUMNS = {SMALL: 1, TWO_COLUMNS: 2, WIDE: 3}  # of the page
_PIXELS_AN_INCH = 72  # of matplotlib's SVG files
_MAX_POINTS = 400
_MAX_DOTS = 60  # beyond this a dot for every point hides the line
_LONE_DOT = 7.0  # pixels of the only point of a line, as in a run shorter than one log period


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line.

    Attributes:
        label: name in the legend.
        x: positions, increasing, such as steps: the axis has whole numbers.
        y: values; None and non-finite ones leave a gap.
        style: which of the line styles it has, see `style.line_style`.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    style: int = 0


def new_figure(size: tuple[float, float]) -> Figure:
    """Return an empty figure of a size in pixels."""
    width, height = size
    return Figure(figsize=(width / _PIXELS_AN_INCH, height / _PIXELS_AN_INCH), layout="constrained")


def line_chart(
    series: Sequence[Series],
    *,
    key: str,
    title: str,
    note: str = "",
    x_label: str = "step",
    references: Sequence[tuple[str, str, float]] = (),
    is_log: bool = False,
    starts_at_zero: bool = False,
    size: tuple[float, float] = SMALL,
) -> Chart | None:
    """Draws lines over a common x axis.

    Args:
        series: the lines; those without a finite point are left out.
        key: a name that no other chart of the page has.
        title: heading.
        note: small print behind the title.
        x_label: name of the x axis.
        references: (name, label, value) of horizontal lines, names as in `style.REFERENCES`.
        is_log: logarithmic y axis; ignored unless every value is positive.
        starts_at_zero: the y axis includes zero.
        size: width and height in pixels of the drawing: `SMALL`, `TWO_COLUMNS` or `WIDE`.

    Returns:
        The chart, or None when there is nothing to draw.
    """
    drawn = [thinned for s in series if len((thinned := _thinned(s)).x)]
    levels = [level for level in references if math.isfinite(level[2])]
    if not drawn:
        return None
    values = [y for s in drawn for y in s.y if y is not None] + [level[2] for level in levels]
    tips: dict[str, list[str]] = {}
    with drawing():
        page = new_figure(size)
        panel = page.subplots()
        for name, label, value in levels:
            draw_level(panel, name, value, label)
        for i, entry in enumerate(drawn):
            tips |= _draw_line(panel, entry, i, is_named=len(drawn) > 1)
        ends = min(s.x[0] for s in drawn), max(s.x[-1] for s in drawn)
        panel.set_xlim(*_padded(*ends, 0.015 if size == SMALL else 0.0))
        _scale_y(panel, values, is_log=is_log and min(values) > 0, starts_at_zero=starts_at_zero)
        count = max(3, round(size[0] / 90))
        panel.xaxis.set_major_locator(_round_numbers(count, integer=True))
        _finish(panel, x_label)
        draw_legend(page, panel)
        drawing_ = inline_svg(
            page, key=key, title=title, description=_told(drawn, levels, x_label), tips=tips
        )
    return Chart(title, note, drawing_, _COLUMNS[size])


def bar_chart(
    groups: Sequence[str],
    bars: Sequence[tuple[str, Sequence[float | None]]],
    *,
    key: str,
    title: str,
    note: str = "",
    show: Callable[[float], str] = figure,
    size: tuple[float, float] = SMALL,
) -> Chart | None:
    """Draws groups of bars from zero, each with its value on top.

    Args:
        groups: names below the groups.
        bars: (label, one value a group); None leaves a bar out.
        key: a name that no other chart of the page has.
        title: heading.
        note: small print behind the title.
        show: a value as text.
        size: width and height in pixels of the drawing: `SMALL`, `TWO_COLUMNS` or `WIDE`.

    Returns:
        The chart, or None when there is nothing to draw.
    """
    told = []
    with drawing():
        page = new_figure(size)
        panel = page.subplots()
        width = 0.76 / max(1, len(bars))
        for k, (label, heights) in enumerate(bars):
            known = [(g, v) for g, v in enumerate(heights) if v is not None]
            at = [g - 0.38 + (k + 0.5) * width for g, _ in known]
            colour = LINE_COLOURS[k % len(LINE_COLOURS)]
            boxes = panel.bar(at, [v for _, v in known], 0.92 * width, color=colour, label=label)
            panel.bar_label(boxes, [show(v) for _, v in known], padding=2)
            told += [f"{label}, {groups[g]}: {show(v)}" for g, v in known]
        if not told:
            return None
        panel.set_xticks(range(len(groups)), [plain(group) for group in groups])
        panel.set_xlim(-0.5, len(groups) - 0.5)
        panel.margins(y=0.12)
        panel.yaxis.set_major_locator(_round_numbers(4))
        _finish(panel, "")
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
        if len(bars) > 1:
            draw_legend(page, panel)
        drawing_ = inline_svg(page, key=key, title=title, description="; ".join(told))
    return Chart(title, note, drawing_, _COLUMNS[size])


def _draw_line(panel: Axes, entry: Series, index: int, *, is_named: bool) -> dict[str, list[str]]:
    """Draws one line and returns the texts of its dots; a point without neighbours has one."""
    known = [i for i, value in enumerate(entry.y) if value is not None]
    is_lone = len(known) == 1
    dots = known if len(known) <= _MAX_DOTS else _without_neighbours(known)
    look = line_style(entry.style) | {"markevery": dots}
    look |= {"markersize": _LONE_DOT} if is_lone else {}
    label = f"{entry.label}: {figure(entry.y[known[0]])}" if is_lone else entry.label
    y = [math.nan if value is None else value for value in entry.y]
    (line,) = panel.plot(entry.x, y, **look, label=plain(label) if is_named or is_lone else "_")
    line.set_gid(mark(f"line{index}"))
    if not dots:
        return {}
    texts = [f"{entry.label} {tick_text(entry.x[i])}: {figure(entry.y[i])}" for i in dots]
    return {f"line{index}": texts}


def _without_neighbours(known: Sequence[int]) -> list[int]:
    """Those of increasing places whose neighbours on both sides are missing: no line shows them."""
    there = set(known)
    return [i for i in known if not there & {i - 1, i + 1}]


def _scale_y(panel: Axes, values: Sequence[float], *, is_log: bool, starts_at_zero: bool) -> None:
    if not is_log:
        low, high = _padded(min(values), max(values), 0.06)
        panel.set_ylim(*((min(low, 0.0), max(high, 0.0)) if starts_at_zero else (low, high)))
        panel.yaxis.set_major_locator(_round_numbers(4))
        return
    low, high = _padded(math.log10(min(values)), math.log10(max(values)), 0.05)
    panel.set_yscale("log")
    panel.set_ylim(10**low, 10**high)
    panel.yaxis.set_major_locator(_log_locator(high - low))
    panel.yaxis.set_minor_locator(NullLocator())


def _log_locator(decades: float) -> LogLocator | MaxNLocator:
    """Powers of ten; more of each, or even steps, where those are few."""
    if decades < 0.3:
        return _round_numbers(4)
    subs = ((1.5, (1.0, 2.0, 3.0, 5.0)), (2.0, (1.0, 2.0, 5.0)), (3.0, (1.0, 3.0)))
    return LogLocator(subs=next((few for end, few in subs if decades < end), (1.0,)))


def _round_numbers(count: int, *, integer: bool = False) -> MaxNLocator:
    return MaxNLocator(count, steps=[1, 2, 5, 10], integer=integer, min_n_ticks=1)


def _finish(panel: Axes, x_label: str) -> None:
    panel.grid(visible=False, axis="x")
    panel.tick_params(length=0)
    panel.spines["left"].set_visible(False)
    panel.yaxis.set_major_formatter(FuncFormatter(tick_text))
    if x_label:
        panel.set_xlabel(x_label)
        panel.xaxis.set_major_formatter(FuncFormatter(tick_text))


def _told(series: Sequence[Series], levels: Sequence[tuple[str, str, float]], x_label: str) -> str:
    """The lines in words."""
    parts = []
    for entry in series:
        values = [y for y in entry.y if y is not None]
        parts.append(
            f"{entry.label}: {figure(values[0])} at {x_label} {tick_text(entry.x[0])} to "
            f"{figure(values[-1])} at {x_label} {tick_text(entry.x[-1])}, "
            f"lowest {figure(min(values))}, highest {figure(max(values))}"
        )
    return "; ".join([*parts, *(f"{label}: {figure(value)}" for _, label, value in levels)])


def _thinned(series: Series) -> Series:
    """Makes non-finite values None, cuts the empty ends and averages neighbours of long lines."""
    y = [v if v is not None and math.isfinite(v) else None for v in series.y]
    known = [i for i, v in enumerate(y) if v is not None]
    if not known:
        return Series(label=series.label, x=[], y=[], style=series.style)
    xs, ys = list(series.x)[known[0] : known[-1] + 1], y[known[0] : known[-1] + 1]
    size = math.ceil(len(xs) / _MAX_POINTS)
    blocks = [slice(i, i + size) for i in range(0, len(xs), size)]
    return Series(
        label=series.label,
        x=[xs[block][-1] for block in blocks],
        y=[_mean([v for v in ys[block] if v is not None]) for block in blocks],
        style=series.style,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    """Widens a range by a share on both sides; an empty range becomes a visible one."""
    if high <= low:
        room = abs(low) * 0.1 or 0.5
        return low - room, high + room
    return low - share * (high - low), high + share * (high - low)
