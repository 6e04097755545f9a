"""plan_TOPOLOGY.html: what a config would take on a machine, as one page without script."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpdiff_jax.durable_files import write_durably
from tpdiff_jax.report import markup
from tpdiff_jax.report.markup import escape, figure, percent, seconds, with_prefix
from tpdiff_jax.report.shell import page_shell

_NOTE = (
    "Memory, messages and traffic are the compiler's own analysis of the programs that training "
    "and sampling run. Times are the roofline's: the least that the chip's data sheet allows, "
    "with perfect overlap. Nothing here was measured."
)
_TIMES = ("compute", "memory", "interconnect", "seconds")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def write_plan_page(path: Path) -> Path:
    """Write the page beside a plan's JSON file and return its path."""
    content = json.loads(path.read_text())
    page = path.with_suffix(".html")
    write_durably(page, render_plan(content))
    return page


def render_plan(content: Mapping[str, Any]) -> str:
    """The whole page as HTML."""
    machine = content["topology"]
    refusal = content["refusal"]
    sections = [
        ("memory", "Memory of one device", _memory_table(content)),
        ("time", "Least time of one run", _time_table(content)),
        ("messages", "Messages between chips", _message_table(content)),
        ("chip", "The chip", _chip_facts(content)),
    ]
    notes = f"<p class='note'>{_NOTE}</p>"
    if refusal:
        notes += f"<p class='note bad'>{escape(refusal)}</p>"
    mesh = " x ".join(f"{name} {size}" for name, size in machine["mesh"].items())
    heading = f"Plan for {machine['name']}"
    return page_shell(
        title=heading,
        heading=heading,
        subtitle=f"{machine['num_devices']} devices, mesh {mesh}",
        facts=markup.facts(_head_facts(content)),
        sections=sections,
        notes=notes,
    )


def _head_facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    state, training = content["state"], content["training"]
    largest = content["largest_batch"]
    items = [
        ("fits", "no" if content["refusal"] else "yes"),
        ("parameters", with_prefix(state["num_parameters"])),
        ("clips a step, full rate", figure(content["stages"][-1]["batch_size"])),
    ]
    if largest:
        items.append(("largest batch that fits", figure(largest["batch_size"])))
    if training:
        items += [
            ("mean step, at least", seconds(training["step_seconds"])),
            ("tokens a second, at most", with_prefix(training["tokens_per_second"])),
            (
                "pyramid over full rate",
                f"{figure(training['speedup_over_vanilla'], 3)} times as fast",
            ),
            (
                f"chip-hours for {figure(training['num_clips'])} clips, at least",
                f"{figure(training['chip_hours'], 3)} <small>(full rate: "
                f"{figure(training['chip_hours_vanilla'], 3)})</small>",
            ),
        ]
    return items


def _programs(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*content["stages"], content["sampler"]]


def _memory_table(content: Mapping[str, Any]) -> str:
    headers = ["program", "clips", "peak", "of memory", "fits"]
    headers += ["state and batch", "temporaries", "code"]
    rows = []
    for row in _programs(content):
        memory = row["memory"] or {}
        parts = [memory.get(name) for name in ("argument", "temporary", "code")]
        rows.append(
            [
                escape(row["name"]),
                figure(row["batch_size"]),
                byte_count(row["needed_bytes"]),
                percent(row.get("memory_share")),
                "yes" if row["fits"] else "no",
                *map(byte_count, parts),
            ]
        )
    state = content["state"]
    facts = [
        (name, byte_count(state[key]))
        for name, key in (
            ("parameters", "parameter_bytes"),
            ("moving average", "average_bytes"),
            ("optimizer", "optimizer_bytes"),
        )
    ]
    return markup.table(headers, rows) + markup.facts(facts)


def _time_table(content: Mapping[str, Any]) -> str:
    headers = ["program", "tokens", "model FLOPs", "executed FLOPs", "compute", "memory", "links"]
    headers += ["at least", "bound by", "MFU, at most"]
    rows = []
    for row in _programs(content):
        bound = row["roofline"] or {}
        rows.append(
            [
                escape(row["name"]),
                figure(row.get("tokens")),
                with_prefix(row["model_flops"], "FLOP"),
                with_prefix(row.get("executed_flops"), "FLOP"),
                *(
                    seconds(bound.get(name))
                    for name in ("compute", "memory", "interconnect", "seconds")
                ),
                escape(bound.get("bound_by", "")) or markup.MISSING,
                percent(bound.get("mfu_bound")),
            ]
        )
    return markup.table(headers, rows)


def _message_table(content: Mapping[str, Any]) -> str:
    headers = ["program", "kind", "messages", "sent by each device", "overlapped with work"]
    rows = [
        [
            escape(row["name"]),
            escape(collective["kind"]),
            figure(collective["num_messages"]),
            byte_count(collective["sent_bytes"]),
            figure(collective["num_overlapped"]),
        ]
        for row in _programs(content)
        for collective in row.get("collectives") or ()
    ]
    loops = sum(len(row.get("unknown_loops") or ()) for row in _programs(content))
    note = f"<p>{loops} loops of unknown length counted once.</p>" if loops else ""
    return markup.table(headers, rows) + note if rows else ""


def _chip_facts(content: Mapping[str, Any]) -> str:
    chip = content["chip"]
    if not chip:
        return "<p>No published figures are known for this device: there is no roofline.</p>"
    return markup.facts(
        [
            ("name", escape(chip["name"])),
            ("bfloat16 peak", with_prefix(chip["bf16_flops"], "FLOP/s")),
            ("HBM", byte_count(chip["memory_bytes"])),
            ("HBM bandwidth", with_prefix(chip["memory_bandwidth"], "B/s")),
            ("all links, one way", with_prefix(chip["link_bandwidth"], "B/s")),
            ("source", escape(chip["source"])),
        ]
    )


def byte_count(value: Any) -> str:
    """A number of bytes with three places and a binary prefix."""
    if not markup.is_number(value):
        return markup.MISSING
    power = 0
    while value >= 1024 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.{4 if value >= 1000 else 3}g} {_UNITS[power]}"
