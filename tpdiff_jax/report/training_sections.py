"""Report sections about how the run went: losses, cost against the FLOP model, throughput."""

from typing import Any

from tpdiff_jax.report import markup
from tpdiff_jax.report.charts import Series, bar_chart, line_chart
from tpdiff_jax.report.markup import MISSING, figure, is_number, percent, seconds, with_prefix
from tpdiff_jax.report.run_files import Run
from tpdiff_jax.report.schedule_figure import schedule_figure

_WIDE = (1040.0, 300.0)
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


def loss_section(run: Run) -> str:
    """Loss curves, one line a stage, and what else the optimizer logs."""
    by_stage = _stage_series(run, "loss_stage_")
    if not by_stage:
        by_stage = [_series(run, "loss", "loss")]
    charts = line_chart(by_stage, title="Training loss by stage", is_log=True, size=_WIDE)
    small = [
        line_chart([_series(run, name, title)], title=title, is_log=name == "grad_norm")
        for name, title in _OPTIMISATION.items()
        if run.last(name) is not None and (name != "skipped_steps" or run.last(name))
    ]
    return charts + (f"<div class='charts'>{''.join(small)}</div>" if any(small) else "")


def schedule_section(run: Run) -> str:
    """The stage windows over the noise schedule."""
    return schedule_figure(run.results.get("schedule") or {}, run.stages)


def cost_section(run: Run) -> str:
    """Cost of each stage: what the FLOP model predicts and what was measured."""
    stages = run.stages
    if not stages:
        return ""
    flops, times = relative(stages, "flops_per_video"), relative(stages, "step_seconds")
    headers = ["stage", "stride", "frames", "t from", "t to", "sampling steps"]
    headers += ["forward FLOPs a video", "FLOPs over full rate", "training step"]
    headers += ["step over full rate", "measured / predicted"]
    rows = []
    for i, stage in enumerate(stages):
        cells = [figure(stage.get(name)) for name in ("frame_stride", "num_frames")]
        cells += [figure(stage.get(name)) for name in ("t_start", "t_end")]
        cells += [figure(stage.get("steps")), with_prefix(stage.get("flops_per_video"), "FLOP")]
        cells += [figure(flops[i], 3), seconds(stage.get("step_seconds"))]
        cells += [figure(times[i], 3), figure(_ratio(times[i], flops[i]), 3)]
        rows.append([f"<span class='chip c{i % 6}'></span>{i}", *cells])
    groups = [f"stage {i}" for i in range(len(stages))]
    bars = [("FLOP model", "c0", flops), ("measured", "c1", times)]
    chart = bar_chart(
        groups,
        [bar for bar in bars if any(v is not None for v in bar[2])],
        title="Training step over full rate",
        show=lambda value: figure(value, 2),
    )
    curves = line_chart(
        _stage_series(run, "step_seconds_stage_"),
        title="Step time by stage",
        note="seconds",
        starts_at_zero=True,
    )
    summary = markup.facts(_savings(run, flops, times))
    return f"{summary}{markup.table(headers, rows)}<div class='charts'>{chart}{curves}</div>"


def throughput_section(run: Run) -> str:
    """Rates over the run, and their last and mean values."""
    names = {n: title for n, title in _THROUGHPUT.items() if run.last(n) is not None}
    if not names:
        return ""
    rows = []
    for name, title in names.items():
        show = percent if name == "peak_share" else with_prefix
        values = [v for v in run.column(name)[1] if v is not None]
        cells = [sum(values) / len(values), min(values), max(values), values[-1]]
        rows.append([title, *map(show, cells)])
    charts = "".join(
        line_chart([_series(run, name, title)], title=title, starts_at_zero=True)
        for name, title in names.items()
    )
    return (
        markup.table(["rate", "mean", "lowest", "highest", "last"], rows)
        + f"<div class='charts'>{charts}</div>"
    )


def goodput_section(run: Run) -> str:
    """What the wall-clock time of all sessions went into."""
    if not run.goodput:
        return ""
    spent, shares = run.goodput["seconds"], run.goodput["shares"]
    rows = [
        [title, seconds(spent[part]), percent(shares[part])]
        for part, title in _GOODPUT.items()
        if spent.get(part)
    ]
    summary = markup.facts(
        [
            ("wall-clock time of all sessions", seconds(run.goodput["wall_seconds"])),
            ("spent on steps that were kept", percent(run.goodput["goodput"])),
            ("sessions", figure(run.goodput["sessions"])),
            ("between sessions", seconds(run.goodput["between_sessions_seconds"])),
        ]
    )
    return summary + markup.table(["part", "time", "share"], rows)


def relative(stages: list[dict[str, Any]], name: str) -> list[float | None]:
    """A column of the stage table over its value in the last, full-rate stage."""
    return [_ratio(stage.get(name), stages[-1].get(name)) for stage in stages]


def _savings(
    run: Run, flops: list[float | None], times: list[float | None]
) -> list[tuple[str, str]]:
    """Cost of the whole pyramid over that of full rate everywhere, training and sampling."""
    count = len(run.stages)
    probs = run.config.get("train", {}).get("stage_probs") or ()
    training = list(probs) if len(probs) == count else [1.0] * count
    sampling = [stage.get("steps") for stage in run.stages]
    rows = [
        ("Training cost against full rate, FLOP model", training, flops),
        ("Training cost against full rate, measured", training, times),
        ("Sampling cost against full rate, FLOP model", sampling, flops),
    ]
    return [
        (label, f"{figure(mean, 3)} <small>({figure(1 / mean, 3)} times cheaper)</small>")
        for label, weights, costs in rows
        if (mean := weighted_mean(costs, weights))
    ]


def weighted_mean(values: list[float | None], weights: list[Any]) -> float | None:
    """Mean of `values` by `weights`; None when either has a gap."""
    if not all(is_number(v) for v in [*values, *weights]) or not sum(weights):
        return None
    pairs = zip(values, weights, strict=True)
    return sum(w * v for v, w in pairs if v is not None) / sum(weights)


def run_facts(run: Run) -> str:
    """The head of the page: how long, how much, how fast, on what."""
    counts, device = run.results.get("counts") or {}, run.results.get("device") or {}
    newest = run.train[-1]["step"] if run.train else None
    parameters = counts.get("parameters", counts.get("num_parameters"))
    machine = " ".join(str(device[k]) for k in ("num_devices", "kind") if device.get(k))
    items = [
        ("steps", figure(newest)),
        ("videos seen", with_prefix(run.last("samples_seen"))),
        ("training time", seconds(run.last("train_seconds"))),
        ("training cost, network", with_prefix(run.last("train_flops"), "FLOP")),
        ("with alignment and update", with_prefix(run.last("counted_flops"), "FLOP")),
        ("videos a second", figure(run.last("videos_per_second"), 3)),
        ("share of peak", percent(run.last("peak_share"))),
        ("parameters", with_prefix(parameters)),
        ("device", markup.escape(machine) if machine else MISSING),
    ]
    return markup.facts([item for item in items if item[1] != MISSING])


def _ratio(value: Any, reference: Any) -> float | None:
    if not is_number(value) or not is_number(reference) or reference == 0:
        return None
    return value / reference


def _series(run: Run, name: str, label: str, style: str = "c0") -> Series:
    x, y = run.column(name)
    return Series(label=label, x=x, y=y, style=style)


def _stage_series(run: Run, prefix: str) -> list[Series]:
    frames = {
        i: f", {s['num_frames']} frames" for i, s in enumerate(run.stages) if "num_frames" in s
    }
    return [
        _series(run, f"{prefix}{i}", f"stage {i}{frames.get(i, '')}", f"c{i % 6}")
        for i in range(run.num_stages)
        if run.last(f"{prefix}{i}") is not None
    ]
