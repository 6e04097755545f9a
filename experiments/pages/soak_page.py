"""A soak as Markdown: what was killed, what was compared, what differs, how memory went."""

import collections
from collections.abc import Mapping
from typing import Any

from experiments.pages.markdown import table

_MEGA = 1e6


def write_page(report: Mapping[str, Any]) -> str:
    """Return the page of a soak's report."""
    device, lives = report["device"], report["lives"]
    kills = collections.Counter(life["kind"] for life in lives if life["kind"])
    inside = sum(bool(life["kind"] and life["unfinished"]) for life in lives)
    rows = [[name, str(kills[name])] for name in sorted(kills)]
    verdict = "equal to the undisturbed run" if report["is_equal"] else "DIFFERENT"
    return "\n".join(
        [
            f"# Soak: {verdict}",
            "",
            f"`{report['command']}`",
            "",
            f"{device['kind']}, {device['cpu_cores']} cores; {len(lives)} processes in "
            f"{sum(life['seconds'] for life in lives):.0f} s; {inside} kills found an unfinished "
            "save on disk.",
            "",
            table(["kind of kill", "times"], rows),
            "",
            *_compared(report),
            "",
            *_memory(report),
            "",
        ]
    )


def _compared(report: Mapping[str, Any]) -> list[str]:
    arrays, lines = report["different_arrays"], report["different_lines"]
    text = [
        f"Step {report['step']}: {report['num_arrays']} arrays, {report['num_bytes']} bytes, "
        f"{len(arrays)} arrays differ{': ' + ', '.join(arrays[:5]) if arrays else ''}."
    ]
    if report["compared_lines"] is None:
        return [*text, "Logged lines are not compared: the reference did not log every step."]
    first = f", the first at step {lines[0]}" if lines else ""
    return [*text, f"{report['compared_lines']} logged steps, {len(lines)} differ{first}."]


def _memory(report: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in ("undisturbed", "disturbed"):
        growth = report[f"{name}_memory"]
        if growth is not None:
            sizes = [f"{growth[key] / _MEGA:.0f}" for key in ("early", "late", "peak")]
            rows.append([name, f"{growth['seconds']:.0f}", *sizes])
    if not rows:
        return ["Memory was not measured."]
    header = ["longest process", "seconds", "MB after half its time", "MB at its end", "MB at most"]
    return [table(header, rows)]
