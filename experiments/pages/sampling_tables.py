"""Samplers side by side: figures, paired differences to the base, cost, and the frontier."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.statistics import paired_difference, t_interval
from experiments.pages.markdown import mean_and_bounds, mean_and_sd, number, table
from tpdiff_jax.report import style

BASE = "base"


def summarize_points(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return figures and costs of every variant, over runs or, for a single run, over seeds.

    Args:
        points: measurements, see `experiments.sampling`.

    Returns:
        `unit` (what the spread is over), `variants` (name -> steps, guidance, cost, `values` and
        `differences` to the base, both metric -> interval) and `references`.
    """
    unit = "workdir" if len({point["workdir"] for point in points}) > 1 else "seed"
    groups = sorted({point[unit] for point in points})
    names = list(dict.fromkeys(point["variant"] for point in points))
    metrics = list(points[0]["metrics"])
    means = {
        name: {metric: _means(points, name, metric, unit, groups) for metric in metrics}
        for name in names
    }
    variants = {}
    for name in names:
        own = [point for point in points if point["variant"] == name]
        seconds = [point["seconds_per_video"] for point in own]
        variants[name] = {
            "steps_per_stage": own[0]["steps_per_stage"],
            "guidance_per_stage": own[0]["guidance_per_stage"],
            "flops_per_video": own[0]["flops_per_video"],
            "seconds_per_video": float(np.median(seconds)),
            "values": {m: _plain(t_interval(list(means[name][m].values()))) for m in metrics},
            "differences": {
                m: _plain(paired_difference(means[name][m], means[BASE][m])) for m in metrics
            },
        }
    return {"unit": unit, "variants": variants, "references": points[0]["references"]}


def _means(
    points: Sequence[Mapping[str, Any]], name: str, metric: str, unit: str, groups: Sequence[Any]
) -> dict[int, float]:
    """Return the mean of each run (or seed), by its number; of finite values alone."""
    out = {}
    for i, group in enumerate(groups):
        own = [p for p in points if p["variant"] == name and p[unit] == group]
        values = [value for p in own if (value := p["metrics"][metric]) is not None]
        if finite := [value for value in values if math.isfinite(value)]:
            out[i] = float(np.mean(finite))
    return out


def _plain(interval: Any) -> dict[str, Any] | None:
    return None if interval is None else interval._asdict()


def write_page(summary: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Return the tables as Markdown."""
    over = "training runs" if summary["unit"] == "workdir" else "sampling seeds of one run"
    device = summary["device"]
    intro = (
        f"One network, several samplers. Means over {over} ± standard deviation; differences are "
        "paired, with 95 % Student intervals. Guidance other than 1 doubles a network call. "
        f"Measured on: {device['platform']}, {device['kind']}."
    )
    values, differences = [], []
    for name, row in summary["variants"].items():
        values.append([name, *_cost_cells(row), *(mean_and_sd(row["values"][m]) for m in metrics)])
        if name != BASE:
            cells = (mean_and_bounds(row["differences"][m]) for m in metrics)
            differences.append([name, *cells])
    for name, figures in summary["references"].items():
        blank = ["-"] * len(_COST_HEADER)
        values.append([f"*{name}*", *blank, *(number(figures.get(m)) for m in metrics)])
    parts = [
        *("# Samplers", intro, "## Figures", table(["variant", *_COST_HEADER, *metrics], values)),
        *("## Variant minus base", table(["variant", *metrics], differences)),
    ]
    return "\n\n".join(parts) + "\n"


_COST_HEADER = ("steps", "guidance", "FLOP a video", "s a video")


def _cost_cells(row: Mapping[str, Any]) -> list[str]:
    return [
        "+".join(map(str, row["steps_per_stage"])),
        ", ".join(f"{scale:g}" for scale in row["guidance_per_stage"]),
        number(row["flops_per_video"]),
        number(row["seconds_per_video"]),
    ]


def draw_frontier(path: pathlib.Path, summary: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Write figures over seconds a video, one panel for each figure, as PNG and SVG."""
    columns = 2
    rows = -(-len(metrics) // columns)
    with style.drawing():
        figure = Figure(figsize=(12, 3.4 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, metric in zip(panels, metrics, strict=False):
            for i, (name, row) in enumerate(summary["variants"].items()):
                _draw_point(panel, i, name, row, metric)
            panel.set(xlabel="seconds a video", ylabel=metric)
        for panel in panels[len(metrics) :]:
            panel.set_axis_off()
        style.save(figure, path)


def _draw_point(panel: Axes, index: int, name: str, row: Mapping[str, Any], metric: str) -> None:
    value = row["values"][metric]
    if value is None:
        return
    look = style.line_style(index) | {"linestyle": ""}
    at = row["seconds_per_video"], value["mean"]
    panel.errorbar(*at, yerr=value["sd"] or 0.0, **look)
    panel.annotate(style.plain(name), at, fontsize=8, xytext=(4, 4), textcoords="offset points")
