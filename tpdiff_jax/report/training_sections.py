"""How the run went: losses, cost against the FLOP model, throughput, wall-clock time."""

from typing import Any

from tpdiff_jax.report.charts import TWO_COLUMNS, Series, bar_chart, line_chart
from tpdiff_jax.report.formats import (
    MISSING,
    figure,
    is_number,
    percent,
    seconds,
    shown_strides,
    stage_frames,
    stage_shape,
    with_prefix,
)
from tpdiff_jax.report.pages import Fact, Table
from tpdiff_jax.report.run_files import RunRecord
from tpdiff_jax.report.style import LINE_COLOURS
from tpdiff_jax.report.svg import Chart

_OPTIMISATION = {
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "alignment_gain": "alignment gain",
    "noise_mean": "mean of the paired noise",
    "noise_var": "variance of the paired noise",
    "skipped_steps": "skipped steps",
}
_THROUGHPUT = {
    "videos_per_second": "videos per second",
    "frames_per_second": "frames per second",
    "flops_per_second": "FLOP per second",
    "peak_share": "share of the measured matmul peak",
}

_GOODPUT = {
    "training": "training steps that were kept",
    "skipped": "steps that the guard skipped",
    "redone": "steps done again after a restart",
    "start": "start of the process, restoring",
    "compile": "compiling",
    "data": "waiting for data",
    "checkpoint": "waiting for checkpoints",
    "evaluation": "samples and evaluation",
    "other": "anything else",
}


def loss_charts(run: RunRecord) -> list[Chart]:
    """Loss curves, one line a stage, and what else the optimizer logs."""
    by_stage = _stage_series(run, "loss_stage_") or [_series(run, "loss", "loss")]
    title = "Training loss by stage"
    charts = [line_chart(by_stage, key="loss", title=title, is_log=True, size=TWO_COLUMNS)]
    charts += [
        _rate_chart(run, name, title, is_log=name == "grad_norm")
        for name, title in _OPTIMISATION.items()
        if run.last(name) is not None and (name != "skipped_steps" or run.last(name))
    ]
    return [chart for chart in charts if chart]


def cost_content(run: RunRecord) -> dict[str, Any]:
    """Cost of each stage: what the FLOP model predicts and what was measured."""
    stages = run.stages
    if not stages:
        return {}
    flops, times = relative(stages, "flops_per_video"), relative(stages, "step_seconds")
    bars = [("FLOP model", flops), ("measured", times)]
    charts = [
        bar_chart(
            [f"stage {i}" for i in range(len(stages))],
            [bar for bar in bars if any(v is not None for v in bar[1])],
            key="stage-cost",
            title="Training step over full rate",
            show=lambda value: figure(value, 2),
        ),
        line_chart(
            _stage_series(run, "step_seconds_stage_"),
            key="stage-seconds",
            title="Step time by stage",
            note="seconds",
            starts_at_zero=True,
        ),
    ]
    return {
        "facts": _savings(run, flops, times),
        "table": _cost_table(stages, flops, times),
        "num_colours": len(LINE_COLOURS),
        "charts": [chart for chart in charts if chart],
    }


def _cost_table(
    stages: list[dict[str, Any]], flops: list[float | None], times: list[float | None]
) -> Table:
    has_shapes = any("shape" in stage for stage in stages)
    header = ["stage", "stride", "frames x height x width" if has_shapes else "frames"]
    header += ["t from", "t to", "sampling steps", "forward FLOPs a video", "FLOPs over full rate"]
    header += ["training step", "step over full rate", "measured / predicted"]
    rows = []
    for i, (stage, stride) in enumerate(zip(stages, shown_strides(stages), strict=True)):
        cells = [str(i), stride, stage_shape(stage)]
        cells += [figure(stage.get(name)) for name in ("t_start", "t_end", "steps")]
        cells += [with_prefix(stage.get("flops_per_video"), "FLOP")]
        cells += [figure(flops[i], 3), seconds(stage.get("step_seconds"))]
        rows.append([*cells, figure(times[i], 3), figure(_ratio(times[i], flops[i]), 3)])
    return Table(header, rows, "Cost of each stage")


def throughput_content(run: RunRecord) -> dict[str, Any]:
    """Rates over the run, and their last and mean values."""
    names = {n: title for n, title in _THROUGHPUT.items() if run.last(n) is not None}
    rows = []
    for name, title in names.items():
        show = percent if name == "peak_share" else with_prefix
        values = [v for v in run.column(name)[1] if v is not None]
        cells = [sum(values) / len(values), min(values), max(values), values[-1]]
        rows.append([title, *map(show, cells)])
    if not rows:
        return {}
    charts = [_rate_chart(run, name, title, starts_at_zero=True) for name, title in names.items()]
    header = ["rate", "mean", "lowest", "highest", "last"]
    return {
        "tables": [Table(header, rows, "Rates over the run")],
        "charts": [chart for chart in charts if chart],
    }


def goodput_content(run: RunRecord) -> dict[str, Any]:
    """What the wall-clock time of all sessions went into."""
    if not run.goodput:
        return {}
    spent, shares = run.goodput["seconds"], run.goodput["shares"]
    rows = [
        [title, seconds(spent[part]), percent(shares[part])]
        for part, title in _GOODPUT.items()
        if spent.get(part)
    ]
    facts = [
        Fact("wall-clock time of all sessions", seconds(run.goodput["wall_seconds"])),
        Fact("spent on steps that were kept", percent(run.goodput["goodput"])),
        Fact("sessions", figure(run.goodput["sessions"])),
        Fact("between sessions", seconds(run.goodput["between_sessions_seconds"])),
    ]
    table = Table(["part", "time", "share"], rows, "Wall-clock time by what it was spent on")
    return {"facts": facts, "tables": [table]}


def relative(stages: list[dict[str, Any]], name: str) -> list[float | None]:
    """A column of the stage table over its value in the last, full-rate stage."""
    return [_ratio(stage.get(name), stages[-1].get(name)) for stage in stages]


def _savings(run: RunRecord, flops: list[float | None], times: list[float | None]) -> list[Fact]:
    """Cost of the whole pyramid over that of full rate everywhere, training and sampling."""
    count = len(run.stages)
    train = run.config.get("train")
    probs = (train.get("stage_probs") if isinstance(train, dict) else None) or ()
    training = list(probs) if len(probs) == count else [1.0] * count
    sampling = [stage.get("steps") for stage in run.stages]
    rows = [
        ("Training cost against full rate, FLOP model", training, flops),
        ("Training cost against full rate, measured", training, times),
        ("Sampling cost against full rate, FLOP model", sampling, flops),
    ]
    return [
        Fact(label, figure(mean, 3), f"({figure(1 / mean, 3)} times cheaper)")
        for label, weights, costs in rows
        if (mean := weighted_mean(costs, weights))
    ]


def weighted_mean(values: list[float | None], weights: list[Any]) -> float | None:
    """Mean of `values` by `weights`; None when either has a gap."""
    if not all(is_number(v) for v in [*values, *weights]) or not sum(weights):
        return None
    pairs = zip(values, weights, strict=True)
    return sum(w * v for v, w in pairs if v is not None) / sum(weights)


def run_facts(run: RunRecord) -> list[Fact]:
    """The head of the page: how long, how much, how fast."""
    counts, data = run.results.get("counts") or {}, run.results.get("data") or {}
    newest = run.train[-1]["step"] if run.train else None
    parameters = counts.get("parameters", counts.get("num_parameters"))
    facts = [
        Fact("steps", figure(newest)),
        Fact("videos seen", with_prefix(run.last("samples_seen"))),
        Fact("training time", seconds(run.last("train_seconds"))),
        Fact("training cost, network", with_prefix(run.last("train_flops"), "FLOP")),
        Fact("with alignment and update", with_prefix(run.last("counted_flops"), "FLOP")),
        Fact("videos a second", figure(run.last("videos_per_second"), 3)),
        Fact("share of peak", percent(run.last("peak_share"))),
        Fact("parameters", with_prefix(parameters)),
        Fact("captions", str(data.get("captions") or MISSING)),
    ]
    return [fact for fact in facts if fact.value != MISSING]


def _ratio(value: Any, reference: Any) -> float | None:
    if not is_number(value) or not is_number(reference) or reference == 0:
        return None
    return value / reference


def _rate_chart(
    run: RunRecord, name: str, title: str, *, is_log: bool = False, starts_at_zero: bool = False
) -> Chart | None:
    return line_chart(
        [_series(run, name, title)],
        key=name.replace("_", "-"),
        title=title,
        is_log=is_log,
        starts_at_zero=starts_at_zero,
    )


def _series(run: RunRecord, name: str, label: str, style: int = 0) -> Series:
    x, y = run.column(name)
    return Series(label=label, x=x, y=y, style=style)


def _stage_series(run: RunRecord, prefix: str) -> list[Series]:
    known = {i: stage_frames(stage) for i, stage in enumerate(run.stages)}
    frames = {i: f", {count} frames" for i, count in known.items() if count is not None}
    return [
        _series(run, f"{prefix}{i}", f"stage {i}{frames.get(i, '')}", i)
        for i in range(run.num_stages)
        if run.last(f"{prefix}{i}") is not None
    ]
