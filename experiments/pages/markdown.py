"""The summary as Markdown: tables at equal cost, paired differences, speed-ups."""

import decimal
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NONE = "-"
_DIGITS = 3
_ROUNDINGS = {"<": decimal.ROUND_CEILING, ">": decimal.ROUND_FLOOR}
_UNITS = {"samples": "videos", "flops": "FLOP", "seconds": "s"}
_SHOWN_SHARES = (0.5, 1.0)
_ARROWS = {"higher": " (higher)", "lower": " (lower)", "match": " (match real)"}
_NOTES = """\
Values are means over seeds ± standard deviation; differences and speed-ups carry 95 % Student
intervals over paired seeds. Figures between two evaluations lie on the straight line between
them; nothing is extrapolated: `-` was not reached, not measured or not finite, and n says how many
seeds have a figure where some have none. FLOPs are the network's matrix products, forward and
backward, by its FLOP model; seconds are training-step time on this machine, evaluation and
compilation excluded. Where the learning rate decays over a run, points before a run's end show less
than a run of that length would reach."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: int = _DIGITS) -> str:
    """Return a number with few digits; `-` for none."""
    if value is None or not math.isfinite(value):
        return NONE
    if abs(value) < 1e5 and abs(float(f"{value:.{digits}g}")) >= 10**digits:
        return f"{value:.0f}"
    return f"{value:.{digits}g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.2e}"


def median_and_quartiles(values: Mapping[str, float]) -> str:
    """Return `median [low, high]` of quartiles by name."""
    return f"{number(values['median'])} [{number(values['low'])}, {number(values['high'])}]"


def mean_and_sd(interval: Mapping[str, Any] | None, num_seeds: int = 0) -> str:
    """Return `mean ± sd`, with n where it is below the number of seeds; `-` for no finite mean."""
    if interval is None or number(interval["mean"]) == NONE:
        return NONE
    sd = interval["sd"]
    text = number(interval["mean"]) + (f" ± {number(sd, 2)}" if sd is not None else "")
    return text + _few(interval, num_seeds)


def mean_and_bounds(interval: Mapping[str, Any] | None, num_seeds: int = 0) -> str:
    """Return `mean [low, high]`, in bold where the interval excludes 0; n as for `mean_and_sd`."""
    if interval is None or number(interval["mean"]) == NONE:
        return NONE
    mean, low, high = (interval[name] for name in ("mean", "low", "high"))
    sign = "+" if mean > 0 else ""
    if low is None:
        return f"{sign}{number(mean)} (n = {interval['n']})"
    text = f"{sign}{number(mean)} [{number(low)}, {number(high)}]"
    text = f"**{text}**" if low > 0 or high < 0 else text
    return text + _few(interval, num_seeds)


def _few(interval: Mapping[str, Any], num_seeds: int) -> str:
    return f" (n = {interval['n']})" if interval.get("n", num_seeds) < num_seeds else ""


def seed_counts(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return arm -> number of its seeds."""
    return {row["arm"]: len(row["seeds"]) for row in summary["arms"]}


def bounded(value: Mapping[str, Any] | None) -> str:
    """Return a number with its kind of bound in front, rounded so that it stays one."""
    if value is None or value["kind"] == "?":
        return NONE
    if value["kind"] == "=":
        return number(value["value"])
    return value["kind"] + number(_rounded(value["value"], _ROUNDINGS[value["kind"]]))


def _rounded(value: float, rounding: str) -> float:
    """The number with as many digits as `number` writes."""
    if not math.isfinite(value) or value == 0:
        return value
    exact = decimal.Decimal(value)
    last = decimal.Decimal(1).scaleb(exact.adjusted() - _DIGITS + 1)
    return float(exact.quantize(last, rounding))


def write_summary(title: str, summary: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Return the whole page.

    Args:
        title: heading.
        summary: what `aggregate.summarize` returned.
        metrics: figures to show; the JSON file has all, at more positions.
    """
    known = [metric for metric in metrics if metric in summary["metric_info"]]
    parts = [f"# {title}", _NOTES, _device_line(summary), "## Runs", _runs_table(summary)]
    parts += ["## Figures of the finished runs", _final_table(summary, known)]
    seeds = seed_counts(summary)
    for axis, tables in summary["equal"].items():
        for entry in (entry for entry in tables if entry["share"] in _SHOWN_SHARES):
            parts += [_equal_heading(axis, entry), _values_table(entry, known, seeds)]
            if entry["share"] == 1.0 and entry["differences"]:
                parts += ["Arm minus its baseline:", _differences_table(entry, known, seeds)]
    if summary["speedups"]:
        parts += ["## Speed-up to the same quality", _speedup_note(), _speedup_table(summary)]
    return "\n\n".join(parts) + "\n"


def _device_line(summary: Mapping[str, Any]) -> str:
    device, versions = summary["device"], summary["versions"]
    facts = [
        f"{name} {device[name]}" for name in ("platform", "kind", "cpu_cores") if name in device
    ]
    facts += [f"{name} {versions[name]}" for name in ("jax", "python") if name in versions]
    return "Measured on: " + ", ".join(facts) + "."


def _runs_table(summary: Mapping[str, Any]) -> str:
    rows = [
        [
            row["arm"],
            " ".join(map(str, row["seeds"])) or NONE,
            " ".join(map(str, sorted(set(row["steps"])))) or NONE,
            *(mean_and_sd(row[axis]) for axis in _UNITS),
        ]
        for row in summary["arms"]
    ]
    return table(["arm", "seeds", "steps", "videos", "FLOP", "seconds"], rows)


def _metric_header(summary: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    info = summary["metric_info"]
    return [metric + _ARROWS.get(info[metric]["direction"], "") for metric in metrics]


def _final_table(summary: Mapping[str, Any], metrics: Sequence[str]) -> str:
    rows = [
        [row["arm"], *(mean_and_sd(row["final"].get(metric)) for metric in metrics)]
        for row in summary["arms"]
    ]
    for name, values in summary["references"].items():
        rows.append([f"*{name}*", *(number(values.get(metric)) for metric in metrics)])
    return table(["arm", *_metric_header(summary, metrics)], rows)


def _equal_heading(axis: str, entry: Mapping[str, Any]) -> str:
    at = f"{entry['at']:.3g} {_UNITS[axis]}"
    return f"## At equal {axis}: {at} ({entry['share']:.0%} of what every run has reached)"


def _values_table(
    entry: Mapping[str, Any], metrics: Sequence[str], seeds: Mapping[str, int]
) -> str:
    rows = [
        [arm, *(mean_and_sd(values.get(metric), seeds[arm]) for metric in metrics)]
        for arm, values in entry["values"].items()
    ]
    return table(["arm", *metrics], rows)


def _differences_table(
    entry: Mapping[str, Any], metrics: Sequence[str], seeds: Mapping[str, int]
) -> str:
    rows = [
        [arm, *(mean_and_bounds(values.get(metric), seeds[arm]) for metric in metrics)]
        for arm, values in entry["differences"].items()
    ]
    return table(["arm", *metrics], rows)


def _speedup_note() -> str:
    return (
        "Targets are what the baseline has reached at shares of its own budget. `>` before a cost "
        "says that the target was not reached within it; `<` before a speed-up is then its bound."
    )


def _speedup_table(summary: Mapping[str, Any]) -> str:
    header = ["arm", "baseline", "figure", "axis", "target at", "baseline needs", "arm needs"]
    rows = []
    for row in summary["speedups"]:
        cells = [row["arm"], row["baseline"], row["metric"], row["axis"], f"{row['share']:.0%}"]
        if row["ratio"] is None:
            rows.append([*cells, NONE, NONE, NONE, NONE])
            continue
        span = f" [{number(row['low'])}, {number(row['high'])}]" if row["low"] is not None else ""
        cells += [bounded(row["baseline_x"]), bounded(row["arm_x"]), bounded(row["ratio"]) + span]
        rows.append([*cells, f"{row['num_reached']} of {row['num_seeds']}"])
    return table([*header, "speed-up", "reached"], rows)
