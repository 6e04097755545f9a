"""Line and bar charts as inline SVG: sharp at any size, and coloured by the page's style sheet.

SVG instead of pictures keeps the report one small file whose text can be searched and whose
colours follow the reader's light or dark setting.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tpdiff_jax.report.markup import escape, figure, with_prefix

_MAX_POINTS = 400
_MAX_DOTS = 60  # beyond this a dot for every point hides the line


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line.

    Attributes:
        label: name in the legend.
        x: positions, increasing.
        y: values; None and non-finite ones leave a gap.
        style: CSS class that gives the colour: `c0` to `c5`, `ceiling`, `floor0`, `floor1`.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    style: str = "c0"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """The drawing area of a chart and the maps from values to pixels."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    is_log: bool = False
    left: float = 56.0
    right: float = 14.0
    top: float = 10.0
    bottom: float = 34.0

    def x(self, value: float) -> float:
        """Pixel column of a value; the range may run backwards."""
        low, high = self.x_range
        share = (value - low) / (high - low)
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Pixel row of a value."""
        low, high = map(self._scaled, self.y_range)
        share = (self._scaled(value) - low) / (high - low)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    note: str = "",
    x_label: str = "step",
    references: Sequence[tuple[str, float, str]] = (),
    is_log: bool = False,
    starts_at_zero: bool = False,
    size: tuple[float, float] = (360, 220),
) -> str:
    """Draws lines over a common x axis.

    Args:
        series: the lines; those without a finite point are left out.
        title: heading, plain text.
        note: small print behind the title, plain text.
        x_label: name of the x axis.
        references: (label, value, style) of dashed horizontal lines.
        is_log: logarithmic y axis; ignored unless every value is positive.
        starts_at_zero: the y axis includes zero.
        size: width and height in pixels of the drawing.

    Returns:
        A `<figure>`, or "" when there is nothing to draw.
    """
    drawn = [thinned for s in series if len((thinned := _thinned(s)).x)]
    references = [r for r in references if math.isfinite(r[1])]
    if not drawn:
        return ""
    values = [y for s in drawn for y in s.y if y is not None] + [r[1] for r in references]
    is_log = is_log and min(values) > 0
    plot = Plot(
        width=size[0],
        height=size[1],
        x_range=_padded(min(s.x[0] for s in drawn), max(s.x[-1] for s in drawn), 0.0),
        y_range=_y_range(values, is_log=is_log, starts_at_zero=starts_at_zero),
        is_log=is_log,
    )
    parts = [axes(plot, x_label=x_label)]
    for _, value, style in references:
        parts.append(
            f"<line class='ref {style}' x1='{plot.left}' x2='{plot.width - plot.right}'"
            f" y1='{plot.y(value):.1f}' y2='{plot.y(value):.1f}'/>"
        )
    parts += [_line(plot, s) for s in drawn]
    entries = [(escape(s.label), s.style, False) for s in drawn if len(drawn) > 1]
    entries += [
        (f"{escape(label)} {figure(value, 3)}", style, True) for label, value, style in references
    ]
    return framed("".join(parts), plot, title=title, note=note, legend=legend(entries))


def bar_chart(
    groups: Sequence[str],
    bars: Sequence[tuple[str, str, Sequence[float | None]]],
    *,
    title: str,
    note: str = "",
    show: Callable[[float], str] = figure,
    size: tuple[float, float] = (360, 220),
) -> str:
    """Draws groups of bars from zero, each with its value on top.

    Args:
        groups: names below the groups.
        bars: (label, style, one value a group); None leaves a bar out.
        title: heading, plain text.
        note: small print behind the title, plain text.
        show: a value as text.
        size: width and height in pixels of the drawing.

    Returns:
        A `<figure>`, or "" when there is nothing to draw.
    """
    values = [v for _, _, heights in bars for v in heights if v is not None]
    if not values:
        return ""
    plot = Plot(
        width=size[0],
        height=size[1],
        x_range=(0.0, float(len(groups))),
        y_range=(0.0, 1.12 * max(*values, 1e-12)),
        bottom=24.0,
    )
    parts = [_y_axis(plot)]
    bar_width = 0.76 / len(bars)
    for g, group in enumerate(groups):
        parts.append(
            f"<text class='tick' x='{plot.x(g + 0.5):.1f}' y='{plot.height - 8}'"
            f" text-anchor='middle'>{escape(group)}</text>"
        )
        for k, (label, style, heights) in enumerate(bars):
            value = heights[g]
            if value is None:
                continue
            left, right = (plot.x(g + 0.12 + (k + e) * bar_width) for e in (0.04, 0.96))
            top, foot = plot.y(value), plot.y(0.0)
            parts.append(
                f"<rect class='bar {style}' x='{left:.1f}' y='{top:.1f}' rx='2'"
                f" width='{right - left:.1f}' height='{foot - top:.1f}'>"
                f"<title>{escape(label)}, {escape(group)}: {show(value)}</title></rect>"
                f"<text class='tick value' x='{(left + right) / 2:.1f}' y='{top - 4:.1f}'"
                f" text-anchor='middle'>{show(value)}</text>"
            )
    entries = [(escape(label), style, False) for label, style, _ in bars]
    return framed("".join(parts), plot, title=title, note=note, legend=legend(entries))


def framed(content: str, plot: Plot, *, title: str, note: str = "", legend: str = "") -> str:
    """Puts a drawing under its title and legend."""
    small = f" <small>{escape(note)}</small>" if note else ""
    return (
        f"<figure><figcaption><strong>{escape(title)}</strong>{small}{legend}</figcaption>"
        f"<svg viewBox='0 0 {plot.width:g} {plot.height:g}' role='img'"
        f" aria-label='{escape(title)}'>{content}</svg></figure>"
    )


def legend(entries: Sequence[tuple[str, str, bool]]) -> str:
    """A legend of (label HTML, style, is dashed); nothing where there is nothing to tell apart."""
    if not entries:
        return ""
    items = "".join(
        f"<span class='key'><svg viewBox='0 0 18 8'><line class='{'ref' if is_dashed else 'line'}"
        f" {style}' x1='1' x2='17' y1='4' y2='4'/></svg>{label}</span>"
        for label, style, is_dashed in entries
    )
    return f"<span class='legend'>{items}</span>"


def axes(plot: Plot, *, x_label: str) -> str:
    """Grid lines, ticks and the name of the x axis."""
    parts = [_y_axis(plot)]
    low, high = sorted(plot.x_range)
    foot = plot.height - plot.bottom
    for tick in ticks(low, high, max(3, round(plot.width / 90))):
        parts.append(
            f"<text class='tick' x='{plot.x(tick):.1f}' y='{foot + 15:.1f}'"
            f" text-anchor='middle'>{_tick_text(tick)}</text>"
        )
    parts.append(
        f"<text class='tick name' x='{(plot.left + plot.width - plot.right) / 2:.1f}'"
        f" y='{plot.height - 4:.1f}' text-anchor='middle'>{escape(x_label)}</text>"
    )
    return "".join(parts)


def _y_axis(plot: Plot) -> str:
    parts = []
    find = log_ticks if plot.is_log else ticks
    for tick in find(*plot.y_range, max(3, round(plot.height / 55))):
        y = plot.y(tick)
        parts.append(
            f"<line class='grid' x1='{plot.left}' x2='{plot.width - plot.right}'"
            f" y1='{y:.1f}' y2='{y:.1f}'/>"
            f"<text class='tick' x='{plot.left - 6}' y='{y + 3.5:.1f}'"
            f" text-anchor='end'>{_tick_text(tick)}</text>"
        )
    return "".join(parts)


def _line(plot: Plot, series: Series) -> str:
    runs: list[list[str]] = [[]]
    dots = []
    for x, y in zip(series.x, series.y, strict=True):
        if y is None:
            runs.append([])
            continue
        at = f"{plot.x(x):.1f},{plot.y(y):.1f}"
        runs[-1].append(at)
        dots.append(
            f"<circle class='dot {series.style}' cx='{at.split(',')[0]}' cy='{at.split(',')[1]}'"
            f" r='2.2'><title>{escape(series.label)} {_tick_text(x)}: {figure(y)}</title></circle>"
        )
    lines = "".join(
        f"<polyline class='line {series.style}' points='{' '.join(run)}'/>"
        for run in runs
        if len(run) > 1
    )
    return lines + ("".join(dots) if len(dots) <= _MAX_DOTS or not lines else "")


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


def _y_range(values: Sequence[float], *, is_log: bool, starts_at_zero: bool) -> tuple[float, float]:
    if is_log:
        low, high = _padded(math.log10(min(values)), math.log10(max(values)), 0.05)
        return 10**low, 10**high
    low, high = _padded(min(values), max(values), 0.06)
    return (min(low, 0.0), max(high, 0.0)) if starts_at_zero else (low, high)


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    """Widens a range by a share on both sides; an empty range becomes a visible one."""
    if high <= low:
        room = abs(low) * 0.1 or 0.5
        return low - room, high + room
    return low - share * (high - low), high + share * (high - low)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) between two values, about `count`."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= 0.999 * raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]  # 0.6, not 0.6000001


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten between two values; 1, 2 and 5 of each, or even steps, where those are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        found = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(found) >= 3:
            return found[:: max(1, len(found) // (2 * count))]
    return ticks(low, high, count)


def _tick_text(value: float) -> str:
    if abs(value) >= 10_000:
        return with_prefix(value).replace(" ", "&thinsp;")
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.3g}".replace("e-0", "e-")
    return f"{value:.6g}"
