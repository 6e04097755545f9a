"""The stage windows drawn over the noise schedule.

Time runs from noise (t = 1, left) to data (t = 0, right), as sampling does. Each stage has a lane
from t_start to t_end in its colour; the arrows between lanes are the jumps, which go back to a
noisier time because the upsampled end point holds correlated noise that must be drowned in fresh
noise: nu_s = sqrt(L) nu_e (arXiv 2503.09566, section 3.2).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MultipleLocator, NullLocator

from tpdiff_jax.report.charts import WIDE, new_figure
from tpdiff_jax.report.formats import figure, is_number, stage_shape, tick_text
from tpdiff_jax.report.style import LIGHT, LINE_COLOURS, draw_legend, drawing, plain
from tpdiff_jax.report.svg import Chart, inline_svg, mark

_CURVES_HEIGHT = 190.0
_LANE_HEIGHT = 38.0
_FOOT = 60.0
_NU_RANGE = (0.01, 100.0)
_TITLE = "Noise schedule and stage windows"
_NOTE = "sampling runs from left to right; arrows are jumps to the next stage"


def schedule_figure(
    schedule: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], *, key: str = "schedule"
) -> Chart | None:
    """Draws gamma, sigma and nu over t, the stage windows and the jumps.

    Args:
        schedule: lists `t`, `gamma` and `sigma` of equal length.
        stages: rows with `t_start` and `t_end`; others are left out.
        key: a name that no other chart of the page has.

    Returns:
        The chart, or None when there is nothing to draw.
    """
    columns = (schedule.get(name) or () for name in ("t", "gamma", "sigma"))
    points = [point for point in zip(*columns, strict=False) if all(map(is_number, point))]
    if len(points) < 2:
        return None
    rows = [s for s in stages if is_number(s.get("t_start")) and is_number(s.get("t_end"))]
    heights = [_CURVES_HEIGHT, _CURVES_HEIGHT, max(1.0, _LANE_HEIGHT * len(rows))]
    with drawing():
        page = new_figure((WIDE[0], sum(heights) + _FOOT))
        scales, ratio, lanes = page.subplots(3, sharex=True, height_ratios=heights)
        _draw_curves(scales, ratio, points)
        for i, stage in enumerate(rows):
            for panel in (scales, ratio):
                ends = stage["t_end"], stage["t_start"]
                panel.axvspan(*ends, color=_colour(i), alpha=0.13, linewidth=0)
        _draw_lanes(lanes, rows)
        lanes.set(xlim=(1.0, 0.0), xlabel="noise time t (1 is noise, 0 is data)")
        lanes.xaxis.set_major_locator(MultipleLocator(0.1))
        lanes.xaxis.set_major_formatter(FuncFormatter(tick_text))
        for panel in (scales, ratio, lanes):
            panel.tick_params(length=0)
            panel.grid(visible=False, axis="x")
            panel.spines[:].set_visible(False)
        scales.lines[-1].set_label("sigma (noise)")
        _draw_names(scales, ratio)
        draw_legend(page, scales)
        told = "; ".join(_lane_text(i, stage) for i, stage in enumerate(rows))
        drawn = inline_svg(page, key=key, title=_TITLE, description=told or _TITLE)
    return Chart(_TITLE, _NOTE, drawn, columns=3)


def _draw_curves(scales: Axes, ratio: Axes, points: Sequence[tuple[float, float, float]]) -> None:
    t = [point[0] for point in points]
    scales.plot(t, [gamma for _, gamma, _ in points], color=LIGHT["ink"], label="gamma (signal)")
    dashes = (0, (6, 2))
    scales.plot(t, [sigma for *_, sigma in points], color=LIGHT["soft"], linestyle=dashes)
    scales.set(ylim=(-0.03, 1.05), yticks=(0.0, 0.5, 1.0))
    nu = [(at, sigma / gamma) for at, gamma, sigma in points if gamma > 0]
    shown = [(at, value) for at, value in nu if _NU_RANGE[0] <= value <= _NU_RANGE[1]]
    ratio.plot(*zip(*shown, strict=True) if shown else ([], []), color=LINE_COLOURS[3])
    ratio.set(yscale="log", ylim=_NU_RANGE, yticks=(0.01, 0.1, 1.0, 10.0, 100.0))
    ratio.yaxis.set_minor_locator(NullLocator())
    for panel in (scales, ratio):
        panel.yaxis.set_major_formatter(FuncFormatter(tick_text))


def _draw_names(scales: Axes, ratio: Axes) -> None:
    """The lower plot's line joins the upper one's legend."""
    name = "nu = sigma/gamma (lower plot, logarithmic)"
    scales.plot([], [], color=ratio.lines[0].get_color(), label=name)


def _draw_lanes(panel: Axes, stages: Sequence[Mapping[str, Any]]) -> None:
    """One bar a stage, its name beside or inside, and the arrows of the jumps."""
    for i, stage in enumerate(stages):
        start, end = stage["t_start"], stage["t_end"]
        panel.barh(i, end - start, 0.56, left=start, color=_colour(i), gid=mark(f"lane{i}"))
        right_is_free = end > 0.45
        at, side = (end - 0.01, "left") if right_is_free else (start + 0.01, "right")
        panel.text(at, i, plain(_lane_text(i, stage)), ha=side, va="center", fontsize=12)
        if i > 0:
            before, middle = stages[i - 1]["t_end"], i - 0.5
            panel.plot([before, before, start], [i - 0.72, middle, middle], color=LIGHT["ink"])
            arrow = {"arrowstyle": "-|>", "color": LIGHT["ink"], "shrinkA": 0, "shrinkB": 0}
            panel.annotate("", (start, i - 0.28), (start, middle), arrowprops=arrow)
    panel.set(ylim=(max(1, len(stages)) - 0.5, -0.5), yticks=())


def _lane_text(index: int, stage: Mapping[str, Any]) -> str:
    shape = stage_shape(stage)
    unit = "" if " x " in shape else " frames"
    window = f"t = {figure(stage['t_start'])} to {figure(stage['t_end'])}"
    return f"stage {index}: {shape}{unit}, {window}"


def _colour(index: int) -> str:
    return LINE_COLOURS[index % len(LINE_COLOURS)]
