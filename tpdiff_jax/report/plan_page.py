"""plan_TOPOLOGY.html: what a config would take on a machine, as one page without script."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tpdiff_jax.report.charts import TWO_COLUMNS, bar_chart
from tpdiff_jax.report.config_section import config_groups
from tpdiff_jax.report.formats import (
    MISSING,
    byte_count,
    figure,
    percent,
    seconds,
    shown_strides,
    stage_shape,
    with_prefix,
)
from tpdiff_jax.report.origin import origin_facts
from tpdiff_jax.report.pages import Fact, Note, Section, Table, render_page, write_page_beside
from tpdiff_jax.report.svg import Chart

_MAX_GROUPS, _MAX_LETTERS = 6, 24  # of programs, and of their names below bars
_NOTE = (
    "Memory, messages and traffic are the compiler's own analysis of the programs that training "
    "and sampling run. Times are the roofline's: the least that the chip's data sheet allows, "
    "with perfect overlap. Nothing here was measured."
)


def write_plan_page(path: Path) -> Path:
    """Write the page beside a plan's JSON file and return its path."""
    return write_page_beside(path, render_plan)


def render_plan(content: Mapping[str, Any]) -> str:
    """The whole page as HTML."""
    machine, refusal = content["topology"], content["refusal"]
    sections = [
        Section("memory", "Memory of one device", "tables.html", _memory(content)),
        Section("time", "Least time of one run", "tables.html", _time(content)),
        Section("messages", "Messages between chips", "tables.html", _messages(content)),
        Section("stages", "Stages", "tables.html", _stages(content)),
        Section("chip", "The chip", "tables.html", _chip(content)),
        Section("config", "Config", "config.html", config_groups(content.get("config") or {})),
    ]
    mesh = " x ".join(f"{name} {size}" for name, size in machine["mesh"].items())
    heading = f"Plan for {machine['name']}"
    return render_page(
        title=heading,
        heading=heading,
        subtitle=f"{machine['num_devices']} devices, mesh {mesh}",
        facts=_head_facts(content),
        origin=origin_facts(content),
        notes=[Note(_NOTE), *([Note(refusal, is_bad=True)] if refusal else [])],
        sections=sections,
    )


def _head_facts(content: Mapping[str, Any]) -> list[Fact]:
    state, training = content["state"], content["training"]
    largest = content["largest_batch"]
    items = [
        Fact("fits", "no" if content["refusal"] else "yes"),
        Fact("parameters", with_prefix(state["num_parameters"])),
        Fact("clips a step, full rate", figure(content["stages"][-1]["batch_size"])),
    ]
    if remat := content.get("remat"):
        items.append(Fact("model.remat", remat["policy"], f"({remat['reason']})"))
    if largest:
        items.append(Fact("largest batch that fits", figure(largest["batch_size"])))
    if training:
        items += [
            Fact("mean step, at least", seconds(training["step_seconds"])),
            Fact("tokens a second, at most", with_prefix(training["tokens_per_second"])),
            Fact(
                "pyramid over full rate",
                f"{figure(training['speedup_over_vanilla'], 3)} times as fast",
            ),
            Fact(
                f"chip-hours for {figure(training['num_clips'])} clips, at least",
                figure(training["chip_hours"], 3),
                f"(full rate: {figure(training['chip_hours_vanilla'], 3)})",
            ),
        ]
    return items


def _programs(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Training stages and the sampler, where the plan has one."""
    return [row for row in (*content["stages"], content["sampler"]) if row]


def _memory(content: Mapping[str, Any]) -> dict[str, Any]:
    header = ["program", "clips", "peak", "of memory", "fits"]
    header += ["state and batch", "temporaries", "code"]
    rows = []
    for row in _programs(content):
        memory = row["memory"] or {}
        cells = [row["name"], figure(row["batch_size"]), byte_count(row["needed_bytes"])]
        cells += [percent(row.get("memory_share")), "yes" if row["fits"] else "no"]
        cells += [byte_count(memory.get(name)) for name in ("argument", "temporary", "code")]
        rows.append(cells)
    state = content["state"]
    facts = [
        Fact("parameters", byte_count(state["parameter_bytes"])),
        Fact("moving average", byte_count(state["average_bytes"])),
        Fact("optimizer", byte_count(state["optimizer_bytes"])),
    ]
    return {
        "tables": [Table(header, rows, "What each program needs on one device")],
        "facts_below": facts,
        "charts": _memory_charts(content),
    }


def _time(content: Mapping[str, Any]) -> dict[str, Any]:
    header = ["program", "tokens", "model FLOPs", "executed FLOPs", "compute", "memory", "links"]
    header += ["at least", "bound by", "MFU, at most"]
    rows = []
    for row in _programs(content):
        bound = row["roofline"] or {}
        times = [bound.get(name) for name in ("compute", "memory", "interconnect", "seconds")]
        cells = [row["name"], figure(row.get("tokens")), with_prefix(row["model_flops"], "FLOP")]
        cells += [with_prefix(row.get("executed_flops"), "FLOP"), *map(seconds, times)]
        cells += [bound.get("bound_by") or MISSING, percent(bound.get("mfu_bound"))]
        rows.append(cells)
    table = Table(header, rows, "Least time that the chip's data sheet allows")
    return {"tables": [table], "charts": _time_charts(content)}


def _memory_charts(content: Mapping[str, Any]) -> list[Chart]:
    programs = _programs(content)
    shares = [row.get("memory_share") for row in programs]
    title = "Peak over the memory of one device"
    return _bars(programs, [("peak", shares)], key="memory-shares", title=title, show=percent)


def _time_charts(content: Mapping[str, Any]) -> list[Chart]:
    stages = content["stages"]
    bounds = [row["roofline"] or {} for row in stages]
    bars = [
        (label, [bound.get(name) for bound in bounds])
        for label, name in (("compute", "compute"), ("memory", "memory"), ("links", "interconnect"))
    ]
    title = "Least time of a training step by what it needs"
    return _bars(stages, bars, key="least-times", title=title, show=seconds)


def _bars(
    programs: Sequence[Mapping[str, Any]],
    bars: Sequence[tuple[str, Sequence[float | None]]],
    *,
    key: str,
    title: str,
    show: Callable[[float], str],
) -> list[Chart]:
    """Bars by program; none where there are too many to be told apart: the table has them all."""
    if len(programs) > _MAX_GROUPS:
        return []
    names = [str(row["name"])[:_MAX_LETTERS] for row in programs]
    chart = bar_chart(names, bars, key=key, title=title, show=show, size=TWO_COLUMNS)
    return [chart] if chart else []


def _messages(content: Mapping[str, Any]) -> dict[str, Any]:
    header = ["program", "kind", "messages", "sent by each device", "overlapped with work"]
    rows = [
        [
            row["name"],
            collective["kind"],
            figure(collective["num_messages"]),
            byte_count(collective["sent_bytes"]),
            figure(collective["num_overlapped"]),
        ]
        for row in _programs(content)
        for collective in row.get("collectives") or ()
    ]
    loops = sum(len(row.get("unknown_loops") or ()) for row in _programs(content))
    remark = f"{loops} loops of unknown length counted once." if loops else ""
    table = Table(header, rows, "Messages of one run of each program")
    return {"tables": [table], "remark": remark} if rows else {}


def _stages(content: Mapping[str, Any]) -> dict[str, Any]:
    """Strides and sizes of the programs that say them."""
    stages = [s for s in content["stages"] if "frame_stride" in s or "strides" in s]
    header = ["program", "stride", "frames x height x width"]
    if not any("shape" in stage for stage in stages):
        header[-1] = "frames"
    rows = [
        [stage["name"], stride, stage_shape(stage)]
        for stage, stride in zip(stages, shown_strides(stages), strict=True)
    ]
    return {"tables": [Table(header, rows, "Strides and sizes of clips")]} if rows else {}


def _chip(content: Mapping[str, Any]) -> dict[str, Any]:
    chip = content["chip"]
    if not chip:
        unknown = "No published figures are known for this device: there is no roofline."
        return {"remark": unknown}
    facts = [
        Fact("name", chip["name"]),
        Fact("bfloat16 peak", with_prefix(chip["bf16_flops"], "FLOP/s")),
        Fact("HBM", byte_count(chip["memory_bytes"])),
        Fact("HBM bandwidth", with_prefix(chip["memory_bandwidth"], "B/s")),
        Fact("all links, one way", with_prefix(chip["link_bandwidth"], "B/s")),
        Fact("source", chip["source"]),
    ]
    return {"facts": facts}
