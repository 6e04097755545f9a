"""Assembles report.html from a run's sections."""

import os
from pathlib import Path
from typing import Any

from tpdiff_jax.report.config_section import Groups, config_groups, field_texts
from tpdiff_jax.report.formats import strides_text
from tpdiff_jax.report.origin import origin_facts
from tpdiff_jax.report.pages import Note, Section, render_page, write_page
from tpdiff_jax.report.result_sections import (
    metric_charts,
    results_content,
    samples_content,
)
from tpdiff_jax.report.run_files import RunRecord, read_run
from tpdiff_jax.report.schedule_figure import schedule_figure
from tpdiff_jax.report.training_sections import (
    cost_content,
    goodput_content,
    loss_charts,
    run_facts,
    throughput_content,
)

REPORT_FILE = "report.html"
_SETTING = ("data", "measurement", "counts", "timing", "device", "seeds", "versions")


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
    write_page(path, report_html(run))
    return path


def report_html(run: RunRecord) -> str:
    """The whole page as HTML."""
    stages = schedule_figure(run.results.get("schedule") or {}, run.stages)
    sections = [
        Section("samples", "Samples", "samples.html", samples_content(run)),
        Section("results", "Results", "results.html", results_content(run)),
        Section("curves", "Metrics over training", "charts.html", metric_charts(run)),
        Section("training", "Training", "charts.html", loss_charts(run)),
        Section("stages", "Stages", "charts.html", [stages] if stages else []),
        Section("cost", "Cost", "cost.html", cost_content(run)),
        Section("throughput", "Throughput", "tables.html", throughput_content(run)),
        Section("time", "Where the time went", "tables.html", goodput_content(run)),
        Section("setting", "Setting", "fields.html", _setting(run)),
        Section("config", "Config", "config.html", config_groups(run.config)),
    ]
    notes = [Note(problem) for problem in run.problems]
    told = run.results.get("notes")
    notes += [Note(f"Evaluation: {text}.") for text in told or () if isinstance(text, str)]
    if not run.evaluation and not run.results.get("metrics") and not told:
        notes.append(Note("This run has not been evaluated yet."))
    name = run.workdir.resolve().name
    return render_page(
        title=f"{name}: temporal-pyramid video diffusion",
        heading=name,
        subtitle=_subtitle(run),
        facts=run_facts(run),
        origin=origin_facts(run.results),
        notes=notes,
        sections=sections,
    )


def _subtitle(run: RunRecord) -> str:
    """What was trained, in one line: path, strides, data, network."""

    def field(group: str, name: str) -> Any:
        fields = run.config.get(group)
        return fields.get(name) if isinstance(fields, dict) else None

    strides = strides_text(run.config_strides)
    joined = (", " if any(" x " in text for text in strides) else "-").join(strides)
    kind = f"temporal pyramid {joined}" if len(strides) > 1 else "vanilla" if strides else ""
    size, frames = field("data", "frame_size"), field("data", "num_frames")
    parts = [
        {"flow": "flow matching", "ddim": "DDIM"}.get(str(field("path", "name")), ""),
        kind,
        str(field("data", "name") or "").replace("_", " "),
        f"{frames} frames of {size} x {size}" if size and frames else "",
        str(field("model", "name") or "").replace("_", " "),
    ]
    return ", ".join(part for part in parts if part) or "temporal-pyramid video diffusion"


def _setting(run: RunRecord) -> Groups:
    """Everything that has to be equal for the figures to be comparable."""
    groups = [(name.capitalize(), run.results.get(name)) for name in _SETTING]
    return [(title, field_texts(fields)) for title, fields in groups if isinstance(fields, dict)]
