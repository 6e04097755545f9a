"""Assembles report.html from a run's sections."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tpdiff_jax.durable_files import write_durably
from tpdiff_jax.report import markup
from tpdiff_jax.report.markup import escape
from tpdiff_jax.report.result_sections import (
    metric_curves_section,
    results_section,
    samples_section,
)
from tpdiff_jax.report.run_files import Run, read_run
from tpdiff_jax.report.shell import page_shell
from tpdiff_jax.report.training_sections import (
    cost_section,
    goodput_section,
    loss_section,
    run_facts,
    schedule_section,
    throughput_section,
)

REPORT_FILE = "report.html"


def write_report(workdir: str | os.PathLike[str]) -> Path:
    """Writes `report.html` into a run's directory from whatever the run has left there so far.

    Args:
        workdir: directory with any of `metrics.jsonl`, `results.json`, `config.json`, `samples/`.

    Returns:
        The report's path.

    Raises:
        ValueError: there is no such directory.
    """
    run = read_run(Path(workdir))
    path = run.workdir / REPORT_FILE
    write_durably(path, render(run))
    return path


def render(run: Run) -> str:
    """The whole page as HTML."""
    sections: list[tuple[str, str, Callable[[Run], str]]] = [
        ("samples", "Samples", samples_section),
        ("results", "Results", results_section),
        ("curves", "Metrics over training", metric_curves_section),
        ("training", "Training", loss_section),
        ("stages", "Stages", schedule_section),
        ("cost", "Cost", cost_section),
        ("throughput", "Throughput", throughput_section),
        ("time", "Where the time went", goodput_section),
        ("setting", "Setting", _setting_section),
        ("config", "Config", _config_section),
    ]
    notes = "".join(f"<p class='note'>{escape(problem)}</p>" for problem in run.problems)
    if not run.evaluation and not run.results.get("metrics"):
        notes += "<p class='note'>This run has not been evaluated yet.</p>"
    name = run.workdir.resolve().name
    return page_shell(
        title=f"{name}: temporal-pyramid video diffusion",
        heading=name,
        subtitle=_subtitle(run.config),
        facts=run_facts(run),
        sections=[(key, title, make(run)) for key, title, make in sections],
        notes=notes,
    )


def _subtitle(config: dict[str, Any]) -> str:
    """What was trained, in one line: path, strides, data, network."""

    def field(group: str, name: str) -> Any:
        return (config.get(group) or {}).get(name)

    strides = field("pyramid", "frame_strides") or ()
    kind = "temporal pyramid " + "-".join(map(str, strides)) if len(strides) > 1 else "vanilla"
    size, frames = field("data", "frame_size"), field("data", "num_frames")
    path = {"flow": "flow matching", "ddim": "DDIM"}.get(field("path", "name"), "")
    parts = [
        path,
        kind if strides else "",
        str(field("data", "name") or "").replace("_", " "),
        f"{frames} frames of {size} x {size}" if size and frames else "",
        str(field("model", "name") or "").replace("_", " "),
    ]
    return ", ".join(part for part in parts if part) or "temporal-pyramid video diffusion"


def _setting_section(run: Run) -> str:
    """Everything that has to be equal for the figures to be comparable."""
    groups = [("measurement", "Measurement"), ("counts", "Counts"), ("timing", "Timing")]
    groups += [("device", "Device")]
    groups += [("seeds", "Seeds"), ("versions", "Versions")]
    tables = [
        f"<div><h3>{title}</h3>{_pairs(run.results[name])}</div>"
        for name, title in groups
        if run.results.get(name)
    ]
    return f"<div class='columns'>{''.join(tables)}</div>" if tables else ""


def _config_section(run: Run) -> str:
    """The resolved config, group by group."""
    tables = [
        f"<div><h3>{escape(group)}</h3>{_pairs(fields)}</div>"
        for group, fields in run.config.items()
        if isinstance(fields, dict)
    ]
    plain = {name: value for name, value in run.config.items() if not isinstance(value, dict)}
    tables += [f"<div>{_pairs(plain)}</div>"] if plain else []
    if not tables:
        return ""
    columns = f"<div class='columns'>{''.join(tables)}</div>"
    return f"<details><summary>All fields</summary>{columns}</details>"


def _pairs(fields: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{_value(value)}</td></tr>"
        for name, value in fields.items()
    )
    return f"<table class='pairs'><tbody>{rows}</tbody></table>"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return escape("(" + ", ".join(map(str, value)) + ")")
    if isinstance(value, dict):
        return escape(", ".join(f"{name}: {entry}" for name, entry in value.items()))
    return escape(value) if isinstance(value, bool) or value is None else markup.figure(value)
