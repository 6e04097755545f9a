"""The figures of `bench.cost` as a Markdown page."""

from collections.abc import Mapping
from typing import Any

from bench.cost_summary import ALIGNMENT_AIM, TOLERANCE
from experiments.pages.markdown import number, table
from tpdiff_jax.report.formats import stage_shape

_INTRO = """\
Timings come from one run in which all cases take turns; ratios are taken within a round. Cells
are medians with their quartiles. Data loading, evaluation and checkpoints are not part of it."""
_REASON = """\
A ratio above the model's means that coarse stages reach fewer FLOP/s than the full-rate one: the
rate of each stage below says where."""


def write_page(report: Mapping[str, Any]) -> str:
    """Return the page; parts that were not timed are left out."""
    device = report["device"]
    where = f"{device['platform']}, {device['kind']}, {device['num_devices']} device(s)"
    if device.get("cpu_cores") and device["platform"] == "cpu":
        where += f", {device['cpu_cores']} cores"
    parts = [
        "# Cost",
        _INTRO,
        f"Measured on: {where}, {report['clock']}; matrix products reach "
        f"{number(report['peak'] / 1e9)} GFLOP/s. Command: `{report['command']}`",
    ]
    if report.get("training") or report.get("sampling"):
        parts += ["## Pyramid over vanilla", _ratio_table(report), _REASON]
    if report.get("training"):
        parts += ["## A training step of each stage", _rates_table(report["training"])]
    if report.get("sampling"):
        parts += ["## A network call of each stage when sampling", _rates_table(report["sampling"])]
        parts.append(_calls_line(report["sampling"]))
    if report.get("alignment"):
        aim = f"Aim: at most {ALIGNMENT_AIM:.0%} of a step in mode `nearest`."
        parts += ["## Alignment", aim, _alignment_table(report)]
    return "\n\n".join(parts) + "\n"


def _ratio_table(report: Mapping[str, Any]) -> str:
    rows = []
    for name, key in (("training step, mean over stages", "training"), ("sampling", "sampling")):
        entry = report.get(key)
        if entry:
            verdict = "yes" if entry["is_within_aim"] else "no"
            model, departure = number(entry["model_ratio"]), f"{entry['departure']:+.1%}"
            rows.append([name, spread(entry["ratio"]), model, departure, verdict])
    header = ["", "measured", "FLOP model", "departure", f"within {TOLERANCE:.0%}"]
    return table(header, rows)


def _rates_table(entry: Mapping[str, Any]) -> str:
    rows = [
        [
            row["twin"],
            str(row["stage"]),
            stage_shape(row),
            number(row["flops"] / 1e9),
            spread(row["seconds"], 1e3),
            number(row["flops_per_second"] / 1e9),
            f"{row['peak_share']:.0%}",
        ]
        for row in entry["stages"]
    ]
    header = ["", "stage", "frames x height x width", "GFLOP", "ms", "GFLOP/s", "of peak"]
    return table(header, rows)


def _calls_line(entry: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {spread(entry['seconds'][name])} s, of which network calls "
        f"{entry['calls_share'][name]['median']:.0%}"
        for name in entry["seconds"]
    ]
    return "One batch: " + "; ".join(parts) + "."


def _alignment_table(report: Mapping[str, Any]) -> str:
    rows = [
        [
            row["mode"],
            "mean" if row["stage"] is None else str(row["stage"]),
            spread(row["share_in_step"], 100.0),
            spread(row["share_alone"], 100.0),
            spread(row["seconds_alone"], 1e3),
        ]
        for row in report["alignment"]
    ]
    header = ["mode", "stage", "added to the step, %", "by itself, % of the step", "by itself, ms"]
    return table(header, rows)


def spread(entry: Mapping[str, float], scale: float = 1.0) -> str:
    """Return `median [low, high]`."""
    median, low, high = (number(scale * entry[name]) for name in ("median", "low", "high"))
    return f"{median} [{low}, {high}]"
