"""The pages of the convergence experiment: the same tables as Markdown and as one HTML file."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.analysis.speedup import TARGET_SHARES
from experiments.pages.markdown import (
    bounded,
    mean_and_bounds,
    mean_and_sd,
    number,
    seed_counts,
    table,
)
from tpdiff_jax.report import pages
from tpdiff_jax.report.origin import origin_facts
from tpdiff_jax.report.svg import Chart, inline_svg

TITLE = "Speed-up to the same quality"
# The paper's training speed-ups to the same FVD (arXiv version; ICLR version), and of its ICLR
# ablation of stages: training, sampling.
PAPER = {
    "flow_tpdiff": "2.13; 2.16",
    "ddim_tpdiff": "2.00; 2.11",
    "flow_pyramid": "-; 1.75",
    "stages_3": "2.16, 1.49",
    "stages_4": "1.82, 1.65",
    "stages_5": "1.71, 1.74",
    "shares_2_1_1": "1.92, 1.62",
    "shares_1_1_2": "1.62, 1.36",
    "factors_4_2": "2.01, 1.54",
    "factors_2_4": "1.76, 1.68",
    "alignment_off": "1.75",
}
_AXES = {
    "network": "FLOP, network",
    "samples": "videos seen",
    "flops": "FLOP, all",
    "seconds": "seconds",
}
_NOTE = (
    "Targets: what each vanilla run has reached{reached} at 50, 75 and 100 % of its own budget. "
    "Curves are monotone envelopes ({envelope}), interpolated log-log; nothing is extrapolated. "
    "Pairs share a seed: the geometric mean of their ratios, with the 95 % t interval on its "
    "logarithm. `<` marks a bound: "
    "some run never reached the target within its budget; `>`: some reached it before its first "
    "evaluation. FLOP, network: its matrix products, forward and backward, what the paper's "
    "speed-ups are about; all: everything that steps execute, with optimizer, alignment and moving "
    "average. Seconds: time of training steps on this machine. The paper's figures are "
    "of other networks and data, to the same FVD."
)
_REACHED = {
    "first": {"reached": "", "envelope": "the best so far"},
    "for_good": {"reached": " for good", "envelope": "the worst from there on"},
}
_LENGTHS_NOTE = (
    " A curve's points are the ends of runs of their own, each with a schedule of its length; of "
    "vanilla the longest alone."
)
_COST_NOTE = (
    "Mean over a run's steps. The network's share is what a large network would see; the "
    "optimizer's does not shrink with the frames. Ratios: vanilla's cost over the arm's."
)
_FIGURES_NOTE = (
    "At the end of the runs, which all had vanilla's training FLOPs of the network: means over "
    "seeds ± standard deviation."
)
_DIFFERENCES_NOTE = (
    "Figures of an arm's end minus those of its vanilla twin's: means of pairs that share a seed, "
    "with 95 % t intervals, bold where they exclude 0. Label accuracy and identity are better when "
    "higher, the others when lower."
)


class Section(NamedTuple):
    """A heading, a note and a table with its caption."""

    title: str
    note: str
    caption: str
    header: list[str]
    rows: list[list[str]]


def sections(summary: Mapping[str, Any], metrics: Sequence[str]) -> list[Section]:
    """Return what both pages show.

    Args:
        summary: content of summary.json.
        metrics: figures of the last table.
    """
    return [
        _speedup_section(summary),
        _cost_section(summary),
        _figure_section(summary, metrics),
        _difference_section(summary, metrics),
    ]


def _speedup_section(summary: Mapping[str, Any]) -> Section:
    shares = [f"to {share:.0%}" for share in TARGET_SHARES]
    found: dict[tuple[str, str, str], dict[float, Mapping[str, Any]]] = {}
    for row in summary["speedups"]:
        key = (row["arm"], row["metric"], row["axis"])
        found.setdefault(key, {})[row["share"]] = row
    rows = [
        [
            arm,
            metric,
            _AXES[axis],
            *(ratio_text(by_share[share]) for share in TARGET_SHARES),
            _reached(by_share[TARGET_SHARES[-1]]),
            PAPER.get(arm, "-"),
        ]
        for (arm, metric, axis), by_share in found.items()
    ]
    header = ["arm", "figure", "axis", *shares, "pairs that reach 100 %", "paper"]
    note = _NOTE.format(**_REACHED[summary["reached"]])
    if summary.get("lengths"):
        note += _LENGTHS_NOTE
    return Section(TITLE, note, "Cost of vanilla over that of the arm", header, rows)


def ratio_text(row: Mapping[str, Any]) -> str:
    """Return `2.1 [1.8, 2.5]`, a bound as `<1.2`, or `-`."""
    if row["ratio"] is None:
        return "-"
    text = bounded(row["ratio"])
    return text if row["low"] is None else f"{text} [{number(row['low'])}, {number(row['high'])}]"


def _reached(row: Mapping[str, Any]) -> str:
    return "-" if row["ratio"] is None else f"{row['num_reached']} of {row['num_seeds']}"


def _cost_section(summary: Mapping[str, Any]) -> Section:
    rows = []
    baselines = {row["arm"]: row["baseline"] for row in summary["speedups"]}
    ends = {row["arm"]: row for row in summary["arms"] if row["seeds"]}
    for arm, row in ends.items():
        own, base = _mean_step(summary, row), ends.get(baselines.get(arm, arm))
        cells = [arm, number(own["network"]), number(own["total"])]
        if base is None:
            rows.append([*cells, "-", "-", "-"])
            continue
        other, sampling = _mean_step(summary, base), summary["sample_flops"]
        cells += [number(other[kind] / own[kind]) for kind in ("network", "total")]
        rows.append([*cells, number(sampling[base["arm"]] / sampling[arm])])
    header = ["arm", "FLOP a step, network", "all", "ratio, network", "ratio, all"]
    caption = "FLOPs of each arm, and vanilla's over them"
    return Section("What a step costs", _COST_NOTE, caption, [*header, "ratio, sampling"], rows)


def _mean_step(summary: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, float]:
    cost = summary["step_flops"][row["arm"]]
    return {
        kind: sum(p * flops for p, flops in zip(cost["stage_probs"], cost[kind], strict=True))
        for kind in ("network", "total")
    }


def _figure_section(summary: Mapping[str, Any], metrics: Sequence[str]) -> Section:
    known = [metric for metric in metrics if metric in summary["metric_info"]]
    rows = [
        [
            row["arm"],
            str(len(row["seeds"])),
            " ".join(map(str, sorted(set(row["steps"])))) or "-",
            mean_and_sd(row["seconds"]),
            *(mean_and_sd(row["final"].get(metric)) for metric in known),
        ]
        for row in summary["arms"]
    ]
    for name, values in summary["references"].items():
        rows.append([name, "-", "-", "-", *(number(values.get(metric)) for metric in known)])
    header = ["arm", "seeds", "steps", "seconds", *known]
    caption = "Figures of each arm, and of real, frozen and shuffled clips"
    return Section("Where the runs ended", _FIGURES_NOTE, caption, header, rows)


def _difference_section(summary: Mapping[str, Any], metrics: Sequence[str]) -> Section:
    known = [metric for metric in metrics if metric in summary["metric_info"]]
    seeds = seed_counts(summary)
    rows = [
        [
            row["arm"],
            f"{row['share']:.0%}",
            *(mean_and_bounds(row["metrics"].get(m), seeds[row["arm"]]) for m in known),
        ]
        for row in summary.get("end_differences", ())
    ]
    header = ["arm", "its share of vanilla's FLOPs", *known]
    caption = "Figure of the arm's end minus that of vanilla's end"
    return Section("Differences to vanilla", _DIFFERENCES_NOTE, caption, header, rows)


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    device, versions = summary["device"], summary["versions"]
    facts = [("command", summary["command"])]
    names = ("platform", "kind", "cpu_cores")
    facts.append(("device", ", ".join(f"{n} {device[n]}" for n in names if n in device)))
    facts.append(("jax", str(versions.get("jax", "-"))))
    chosen = ", ".join(f"{arm} {rate:g}" for arm, rate in summary["rates"].items())
    facts.append(("learning rates", chosen or "the config's, for all arms"))
    return facts


def _head_facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    arms = seed_counts(summary)
    facts = [("arms", str(len(arms))), ("runs", str(sum(arms.values())))]
    return [*facts, *(fact for fact in _facts(summary) if fact[0] == "learning rates")]


def markdown_page(summary: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Return the page as Markdown."""
    parts = [f"# {TITLE}", *(f"{name}: `{value}`" for name, value in _facts(summary))]
    for section in sections(summary, metrics):
        parts += [f"## {section.title}", section.note, table(section.header, section.rows)]
    return "\n\n".join(parts) + "\n"


def html_page(
    summary: Mapping[str, Any],
    metrics: Sequence[str],
    figures: Mapping[str, Figure | None],
) -> str:
    """Return the page as one HTML file with its figures inside.

    Args:
        summary: content of summary.json.
        metrics: figures of the last table.
        figures: title -> what `experiments.pages.figures` drew; None is left out.
    """
    shown = []
    for section in sections(summary, metrics):
        key = section.title.lower().replace(" ", "-")
        content = {
            "remark": section.note.replace("`", ""),
            "tables": [pages.Table(section.header, section.rows, section.caption)],
        }
        shown.append(pages.Section(key, section.title, "tables.html", content))
    drawn = [
        _chart(figure, title, f"drawing-{i}")
        for i, (title, figure) in enumerate(figures.items())
        if figure is not None
    ]
    shown.insert(1, pages.Section("figures", "Figures", "charts.html", drawn))
    return pages.render_page(
        title=TITLE,
        heading=TITLE,
        subtitle="vanilla diffusion against temporal pyramid and alignment, by seed",
        facts=[pages.Fact(name, value) for name, value in _head_facts(summary)],
        origin=origin_facts(summary),
        sections=shown,
    )


def _chart(figure: Figure, title: str, key: str) -> Chart:
    panels = [" ".join(panel.get_ylabel().split()) for panel in figure.axes]
    told = f"{title}; panels: {', '.join(dict.fromkeys(panels))}"
    return Chart(title, "", inline_svg(figure, key=key, title=title, description=told), 3)
