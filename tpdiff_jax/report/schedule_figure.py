"""The stage windows drawn over the noise schedule.

Time runs from noise (t = 1, left) to data (t = 0, right), as sampling does. Each stage has a lane
from t_start to t_end in its colour; the arrows between lanes are the jumps, which go back to a
noisier time because the upsampled end point holds correlated noise that must be drowned in fresh
noise: nu_s = sqrt(L) nu_e (arXiv 2503.09566, section 3.2).
"""

from collections.abc import Sequence
from typing import Any

from tpdiff_jax.report.charts import Plot, framed, legend, ticks
from tpdiff_jax.report.markup import escape, figure, is_number

_WIDTH = 1040.0
_CURVES_HEIGHT = 190.0
_LANE_HEIGHT = 38.0
_BAR_HEIGHT = 22.0
_NU_RANGE = (0.01, 100.0)


def schedule_figure(schedule: dict[str, Any], stages: Sequence[dict[str, Any]]) -> str:
    """Draws gamma, sigma and nu over t, the stage windows and the jumps.

    Args:
        schedule: lists `t`, `gamma` and `sigma` of equal length.
        stages: rows with `t_start` and `t_end`; others are left out.

    Returns:
        A `<figure>`, or "" when there is nothing to draw.
    """
    stages = [s for s in stages if is_number(s.get("t_start")) and is_number(s.get("t_end"))]
    points = [
        (t, gamma, sigma)
        for t, gamma, sigma in zip(
            *(schedule.get(name) or () for name in ("t", "gamma", "sigma")), strict=False
        )
        if is_number(t) and is_number(gamma) and is_number(sigma)
    ]
    if len(points) < 2:
        return ""
    lanes_top = 2 * _CURVES_HEIGHT + 6
    height = lanes_top + _LANE_HEIGHT * len(stages) + 34
    scales = _plot(top=10.0, below=height - _CURVES_HEIGHT, y_range=(0.0, 1.05), height=height)
    ratio = _plot(
        top=_CURVES_HEIGHT + 14,
        below=height - lanes_top + 4,
        y_range=_NU_RANGE,
        height=height,
        is_log=True,
    )
    time = _plot(top=lanes_top, below=34.0, y_range=(0.0, 1.0), height=height)
    parts = [_window(scales, ratio, time, i, stage) for i, stage in enumerate(stages)]
    parts.append(_grid(scales, (0.0, 0.5, 1.0)) + _grid(ratio, (0.01, 0.1, 1.0, 10.0, 100.0)))
    parts.append(_curve(scales, [(t, gamma) for t, gamma, _ in points], "gamma"))
    parts.append(_curve(scales, [(t, sigma) for t, _, sigma in points], "sigma"))
    nu = [(t, s / g) for t, g, s in points if g > 0]
    low, high = _NU_RANGE
    parts.append(_curve(ratio, [(t, v) for t, v in nu if low <= v <= high], "nu"))
    parts.append(_lanes(time, stages))
    parts.append(_time_axis(time))
    names = [("gamma (signal)", "gamma", False), ("sigma (noise)", "sigma", False)]
    names.append(("nu = sigma/gamma (lower plot, logarithmic)", "nu", False))
    return framed(
        "".join(parts),
        time,
        title="Noise schedule and stage windows",
        note="sampling runs from left to right; arrows are jumps to the next frame rate",
        legend=legend(names),
    )


def _plot(
    *, top: float, below: float, y_range: tuple[float, float], height: float, is_log: bool = False
) -> Plot:
    return Plot(
        width=_WIDTH,
        height=height,
        x_range=(1.0, 0.0),
        y_range=y_range,
        is_log=is_log,
        top=top,
        bottom=below,
    )


def _window(scales: Plot, ratio: Plot, time: Plot, index: int, stage: dict[str, Any]) -> str:
    """A stage's band behind the curves."""
    left, right = time.x(stage["t_start"]), time.x(stage["t_end"])
    bands = [(scales.top, scales.height - scales.bottom), (ratio.top, ratio.height - ratio.bottom)]
    return "".join(
        f"<rect class='window c{index % 6}' x='{left:.1f}' y='{top:.1f}'"
        f" width='{right - left:.1f}' height='{foot - top:.1f}'/>"
        for top, foot in bands
    )


def _grid(plot: Plot, values: Sequence[float]) -> str:
    return "".join(
        f"<line class='grid' x1='{plot.left}' x2='{plot.width - plot.right}'"
        f" y1='{plot.y(value):.1f}' y2='{plot.y(value):.1f}'/>"
        f"<text class='tick' x='{plot.left - 6}' y='{plot.y(value) + 3.5:.1f}'"
        f" text-anchor='end'>{value:g}</text>"
        for value in values
    )


def _curve(plot: Plot, points: Sequence[tuple[float, float]], style: str) -> str:
    at = " ".join(f"{plot.x(t):.1f},{plot.y(value):.1f}" for t, value in points)
    return f"<polyline class='line {style}' points='{at}'/>"


def _lanes(time: Plot, stages: Sequence[dict[str, Any]]) -> str:
    """One bar a stage, its name inside, and the arrows of the jumps."""
    arrow = (
        "<defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7'"
        " markerHeight='7' orient='auto'><path class='head' d='M0,0 L8,4 L0,8 z'/></marker></defs>"
    )
    parts = [arrow]
    for i, stage in enumerate(stages):
        left, right = time.x(stage["t_start"]), time.x(stage["t_end"])
        top = time.top + i * _LANE_HEIGHT + 6
        name = f"stage {i}: {escape(stage.get('num_frames', '?'))} frames"
        window = f"t = {figure(stage['t_start'])} to {figure(stage['t_end'])}"
        parts.append(
            f"<rect class='bar c{i % 6}' x='{left:.1f}' y='{top:.1f}' rx='4'"
            f" width='{right - left:.1f}' height='{_BAR_HEIGHT:.1f}'>"
            f"<title>{name}, {window}</title></rect>"
        )
        is_inside = right - left > 210
        parts.append(
            f"<text class='lane{' inside' if is_inside else ''}' y='{top + 15:.1f}'"
            + (f" x='{left + 10:.1f}'" if is_inside else f" x='{right + 8:.1f}'")
            + f">{name}, {window}</text>"
        )
        if i > 0:
            start = time.x(stages[i - 1]["t_end"])
            before = top - _LANE_HEIGHT + _BAR_HEIGHT
            middle = (before + top) / 2
            parts.append(
                f"<path class='jump' marker-end='url(#head)' d='M{start - 1:.1f},{before:.1f}"
                f" V{middle:.1f} H{left + 1:.1f} V{top:.1f}'/>"
            )
    return "".join(parts)


def _time_axis(time: Plot) -> str:
    foot = time.height - time.bottom
    marks = "".join(
        f"<text class='tick' x='{time.x(t):.1f}' y='{foot + 14:.1f}' text-anchor='middle'>"
        f"{t:g}</text>"
        for t in ticks(0.0, 1.0, 10)
    )
    middle = (time.left + time.width - time.right) / 2
    return marks + (
        f"<text class='tick name' x='{middle:.1f}' y='{time.height - 5:.1f}'"
        " text-anchor='middle'>noise time t (1 is noise, 0 is data)</text>"
    )
