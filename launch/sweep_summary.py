"""A sweep side by side: one table, best point first, and one plot of figures over swept fields."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.pages.markdown import NONE, mean_and_sd, number, table
from launch.sweep_points import Point, short_names
from tpdiff_jax.report import style

_LOG_RANGE = 8.0  # positive values that span more than this get a logarithmic axis


def order_points(summary: Mapping[str, Any], metric: str) -> list[str]:
    """Return the names of the points, best first; what has not finished stands last.

    Args:
        summary: what `experiments.analysis.aggregate.summarize` returned.
        metric: figure to go by; its direction says which end is best.
    """
    direction = summary["metric_info"].get(metric, {}).get("direction", "lower")
    ceiling = summary["references"].get("ceiling", {}).get(metric)

    def cost(row: Mapping[str, Any]) -> float:
        interval = row["final"].get(metric)
        if interval is None or not math.isfinite(interval["mean"]):
            return math.inf
        if direction == "match":
            return abs(interval["mean"] - ceiling) if ceiling is not None else math.inf
        return -interval["mean"] if direction == "higher" else interval["mean"]

    return [row["arm"] for row in sorted(summary["arms"], key=cost)]


def write_table(
    summary: Mapping[str, Any],
    points: Mapping[str, Point],
    states: Mapping[str, str],
    order: Sequence[str],
    metrics: Sequence[str],
) -> str:
    """Return the comparison as Markdown.

    Args:
        summary: what `experiments.analysis.aggregate.summarize` returned.
        points: name -> fields.
        states: name -> how far its runs are.
        order: names, best first.
        metrics: figures to show.
    """
    fields = list(dict.fromkeys(field for point in points.values() for field in point))
    short = short_names(fields)
    rows_by_name = {row["arm"]: row for row in summary["arms"]}
    rows = []
    for name in order:
        row, point = rows_by_name[name], points[name]
        cells = [point.get(field, NONE) for field in fields]
        figures = [mean_and_sd(row["final"].get(metric)) for metric in metrics]
        rows.append([*cells, *figures, mean_and_sd(row["seconds"]), states[name]])
    for name, values in summary["references"].items():
        blank = [f"*{name}*", *[""] * (len(fields) - 1)]
        rows.append([*blank, *(number(values.get(metric)) for metric in metrics), "", ""])
    arrows = {m: summary["metric_info"].get(m, {}).get("direction") for m in metrics}
    shown = [f"{metric} ({arrows[metric]})" if arrows[metric] else metric for metric in metrics]
    return table([*(short[field] for field in fields), *shown, "seconds", "runs"], rows)


def draw_sweep(
    path: pathlib.Path,
    summary: Mapping[str, Any],
    points: Mapping[str, Point],
    metrics: Sequence[str],
) -> bool:
    """Write figures (rows) over swept fields (columns) as PNG and SVG; one dot is one point.

    Args:
        path: file without suffix.
        summary: what `experiments.analysis.aggregate.summarize` returned.
        points: name -> fields.
        metrics: figures to draw.

    Returns:
        Whether there was anything to draw.
    """
    fields = list(dict.fromkeys(field for point in points.values() for field in point))
    shown = [m for m in metrics if any(m in row["final"] for row in summary["arms"])]
    if not shown:
        return False
    size = (4.5 * len(fields), 2.8 * len(shown))
    with style.drawing():
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(shown), len(fields), squeeze=False, sharey="row")
        for row, metric in zip(panels, shown, strict=True):
            for panel, field in zip(row, fields, strict=True):
                _draw_panel(panel, summary, points, field, metric)
            row[0].set_ylabel(metric)
        for panel, name in zip(panels[-1], short_names(fields).values(), strict=True):
            panel.set_xlabel(name)
        style.draw_legend(figure, panels[0, 0])
        style.save(figure, path)
    return True


def _draw_panel(
    panel: Axes,
    summary: Mapping[str, Any],
    points: Mapping[str, Point],
    field: str,
    metric: str,
) -> None:
    rows = [
        row for row in summary["arms"] if metric in row["final"] and field in points[row["arm"]]
    ]
    texts = [points[row["arm"]][field] for row in rows]
    values = [row["final"][metric] for row in rows]
    x = _positions(panel, texts)
    means, spread = [v["mean"] for v in values], [v["sd"] or 0.0 for v in values]
    look = style.line_style(0) | {"linestyle": ""}
    panel.errorbar(x, means, yerr=spread, **look, label="point, mean ± sd")
    for name in style.REFERENCES:
        value = summary["references"].get(name, {}).get(metric)
        if value is not None:
            style.draw_level(panel, name, value, name)


def _positions(panel: Axes, texts: Sequence[str]) -> list[float]:
    """Return where values lie on the x axis: numbers at themselves, others one beside another."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        kinds = list(dict.fromkeys(texts))
        panel.set_xticks(range(len(kinds)), kinds)
        return [float(kinds.index(text)) for text in texts]
    if numbers and min(numbers) > 0 and max(numbers) / min(numbers) > _LOG_RANGE:
        panel.set_xscale("log")
    return numbers
