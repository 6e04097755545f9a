"""advise.html: which pyramid the clips of a config allow, as one page without script.

Its one figure sets what a jump hides beside what it leaves out: a spatial frequency whose detail
lies below the noise at which the next stage starts can be left to that stage.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from tpdiff_jax.report.charts import WIDE, new_figure
from tpdiff_jax.report.config_section import config_groups
from tpdiff_jax.report.formats import MISSING, figure, percent, tick_text
from tpdiff_jax.report.origin import origin_facts
from tpdiff_jax.report.pages import Fact, Note, Section, Table, render_page, write_page_beside
from tpdiff_jax.report.style import LIGHT, draw_legend, drawing, line_style
from tpdiff_jax.report.svg import Chart, inline_svg

_TITLE = "What coarse frames miss, and the noise that hides it"
_NOTE = (
    "by spatial frequency: standard deviation of one cosine coefficient. Where a line of misses "
    "lies below a jump's noise, the noise hides what the coarse frames lack"
)
_SHOWN_CANDIDATES = 12
_ROUNDING = 1.0 + 1e-9
_HEIGHT = 340.0


def write_advice_page(path: Path) -> Path:
    """Write the page beside the JSON file of an advice and return its path."""
    return write_page_beside(path, render_advice)


def render_advice(content: Mapping[str, Any]) -> str:
    """The whole page as HTML."""
    data, best = content["data"], content["recommended"]
    shape = " x ".join(map(str, (data["num_frames"], *data["frame_shape"])))
    tables = {"tables": [_settings_table(content), _shares_table(content)]}
    words = [Fact("overrides", best["overrides"], is_code=True)] if best else []
    notes = [Note(content["verdict"])]
    if fields := content["not_modelled"]:
        notes.append(Note(f"Errors do not know {', '.join(fields)}"))
    heading = "Advice on a temporal pyramid"
    return render_page(
        title=heading,
        heading=heading,
        subtitle=f"{data['num_clips']} clips of {shape}",
        facts=_head_facts(content),
        origin=[*words, *origin_facts(content)],
        notes=notes,
        sections=[
            Section("spectrum", "The clips", "charts.html", [spectrum_figure(content)]),
            Section("settings", "Settings", "tables.html", tables),
            Section("config", "Config", "config.html", config_groups(content.get("config") or {})),
        ],
    )


def spectrum_figure(content: Mapping[str, Any]) -> Chart:
    """Deviations of clips and of what copies miss, against the noise of the recommended jumps.

    Args:
        content: of `advise.json`.
    """
    bands, best = content["bands"], content["recommended"]
    strides = [s for s in bands[0]["detail"] if bands[0]["detail"][s] is not None]
    lines = [("the clips", [band["deviation"] for band in bands])]
    for stride in strides:
        misses = [band["detail"][stride] for band in bands]
        lines.append((f"missed by a copy over {stride} frames", misses))
    least = max(1e-3 * max(value for _, values in lines for value in values), 1e-6)
    told = []
    with drawing():
        page = new_figure((WIDE[0], _HEIGHT))
        panel = page.subplots()
        x = [band["frequency"] for band in bands]
        for i, (label, values) in enumerate(lines):
            # What lies below the axis is left out: a line down to it would cross the labels.
            seen = [value if value > least else math.nan for value in values]
            panel.plot(x, seen, **line_style(i), label=label)
            told.append(
                f"{label}: {figure(values[0])} at {figure(x[0])}, {figure(values[-1])} at "
                f"{figure(x[-1])} cycles a pixel"
            )
        for jump in best["jumps"] if best else ():
            label = f"noise where strides {jump['from']} to {jump['to']} jump"
            told.append(f"{label}: {figure(jump['noise'])}")
            _draw_noise(panel, jump["noise"], f"{jump['from']} to {jump['to']}")
        _finish_panel(panel, least)
        draw_legend(page, panel)
        drawn = inline_svg(page, key="spectrum", title=_TITLE, description="; ".join(told))
    return Chart(_TITLE, _NOTE, drawn, columns=3)


def _draw_noise(panel: Axes, level: float, name: str) -> None:
    """A level with its name on it: the legend explains lines, and these are few."""
    panel.axhline(level, color=LIGHT["poor"], linewidth=1.4, linestyle=(0, (5, 3)))
    panel.annotate(
        f"noise at the jump {name}",
        (1.0, level),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
    )


def _finish_panel(panel: Axes, least: float) -> None:
    panel.set_yscale("log")
    panel.set_ylim(bottom=least)
    panel.grid(visible=False, axis="x")
    panel.tick_params(length=0, which="both")
    panel.spines["left"].set_visible(False)
    panel.set_xlabel("spatial frequency, cycles a pixel")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(FuncFormatter(tick_text))


def _head_facts(content: Mapping[str, Any]) -> list[Fact]:
    best, shares = content["recommended"], content["detail_shares"]["nearest"]
    full_rate = content["vanilla"]["error"]
    items = [Fact("pays", "yes" if content["pays"] else "no")]
    if shares.get("2") is not None:
        items.append(Fact("missed by a copy over 2 frames", percent(shares["2"])))
    if best:
        items += [
            Fact("cost of training", percent(best["training_cost"]), "of full rate"),
            Fact("cost of sampling", percent(best["sampling_cost"]), "of full rate"),
            Fact("error", figure(best["error"], 3), f"(full rate: {figure(full_rate, 3)})"),
        ]
    return items


def _settings_table(content: Mapping[str, Any]) -> Table:
    """The recommended setting, the config's own, ordinary diffusion, and the next within limits."""
    header = ["setting", "strides", "upsampling", "stage fractions", "calls"]
    header += ["training", "sampling", "error", "visible detail", "debts"]
    first = "recommended" if content["pays"] else "the best there is"
    named = [(first, content["recommended"]), ("config", content["configured"])]
    named += [("ordinary diffusion", content["vanilla"])]
    named += [(f"next {i}", row) for i, row in enumerate(_next_best(content), start=1)]
    rows = [
        [
            name,
            _listed(row["frame_strides"]),
            row["upsample"],
            _listed(row["stage_fractions"]),
            _listed(row["steps_per_stage"]),
            *(figure(row[key], 3) for key in ("training_cost", "sampling_cost", "error")),
            _listed(row["visible_details"]) or MISSING,
            _listed(row["debts"]) or MISSING,
        ]
        for name, row in named
        if row
    ]
    return Table(header, rows, "Settings; costs are shares of ordinary diffusion's FLOPs")


def _next_best(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Other settings within the limits: the cheapest first, or with one of cost the best first."""
    limits, best = content["inputs"], content["recommended"] or {}
    most, is_capped = limits["max_cost"], limits["max_cost"] is not None
    kept = [
        row
        for row in content["candidates"]
        if (row["cost"] <= most * _ROUNDING if is_capped else row["error"] <= limits["error_limit"])
        and _keeps(row["visible_details"], limits["max_visible"])
        and _keeps(row["debts"], limits["max_debt"])
        and any(row[name] != best.get(name) for name in row)
    ]
    if is_capped:
        order = sorted(kept, key=lambda row: (round(row["error"], 6), row["cost"]))
    else:
        order = sorted(kept, key=lambda row: (round(row["cost"], 6), max(row["visible_details"])))
    return order[:_SHOWN_CANDIDATES]


def _keeps(numbers: Sequence[float], limit: float | None) -> bool:
    return limit is None or max(numbers) <= limit


def _shares_table(content: Mapping[str, Any]) -> Table:
    shares = content["detail_shares"]
    strides = list(next(iter(shares.values())))
    rows = [[name, *(percent(row[stride]) for stride in strides)] for name, row in shares.items()]
    header = ["upsampling", *(f"over {stride} frames" for stride in strides)]
    return Table(header, rows, "Share of the variance that coarse frames miss")


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.3g}" for number in numbers)
