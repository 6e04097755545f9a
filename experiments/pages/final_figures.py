"""Where the arms of a grid ended: one panel a figure, a point and its interval an arm."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tpdiff_jax.report import style
from tpdiff_jax.report.formats import tick_text

_COLUMNS = 3


def draw_final_figures(
    path: pathlib.Path,
    arms: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
    references: Mapping[str, Mapping[str, float]],
) -> Figure | None:
    """Write means and 95 % intervals over seeds at the end of the runs, as PNG and SVG.

    Args:
        path: file without suffix.
        arms: of a summary, each with `arm` and, under `final`, for each figure None or `mean`,
            `low` and `high`; bounds are None for one seed.
        metrics: figures, one panel each.
        references: name -> figures of real, frozen and shuffled clips.

    Returns:
        What was drawn, or None when there was nothing to draw.
    """
    shown = [metric for metric in metrics if any(row["final"].get(metric) for row in arms)]
    if not shown:
        return None
    rows = -(-len(shown) // _COLUMNS)
    with style.drawing():
        size = (4.6 * min(_COLUMNS, len(shown)), rows * (1.1 + 0.32 * len(arms)))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, min(_COLUMNS, len(shown)), squeeze=False)
        panels = list(grid.flat)
        for panel, metric in zip(panels, shown, strict=False):
            for i, row in enumerate(arms):
                _draw_point(panel, row["final"].get(metric), i)
            _draw_levels(panel, references, metric)
            _finish(panel, [row["arm"] for row in arms], metric)
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        style.draw_legend(figure, panels[0])
        style.save(figure, path)
    return figure


def _draw_point(panel: Axes, value: Mapping[str, Any] | None, index: int) -> None:
    if value is None:
        return
    look = style.line_style(index)
    low, high = value["low"], value["high"]
    if low is not None and high is not None:
        panel.plot([low, high], [index, index], color=look["color"], linewidth=2.0)
    panel.plot(
        [value["mean"]], [index], linestyle="", color=look["color"], marker=look["marker"], ms=7
    )


def _draw_levels(panel: Axes, references: Mapping[str, Mapping[str, float]], metric: str) -> None:
    for name, (dashes, colour) in style.REFERENCES.items():
        value = references.get(name, {}).get(metric)
        if value is not None:
            panel.axvline(value, color=colour, linewidth=1.4, linestyle=dashes, label=name)


def _finish(panel: Axes, names: Sequence[str], metric: str) -> None:
    panel.set_yticks(range(len(names)), [style.plain(name) for name in names])
    panel.set_ylim(len(names) - 0.5, -0.5)  # the first arm on top
    panel.set_xlabel(metric)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.xaxis.set_major_formatter(FuncFormatter(tick_text))
