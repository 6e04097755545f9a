"""A report's drawings left blank: half of the time of a run that trains a few tiny steps.

Every run ends with a page of some 25 drawings, each of which takes matplotlib a twentieth of a
second and more. What they show is the claim of tests/report, where, as in commands that tests
start, they are drawn.
"""

import pathlib
from typing import Any

import pytest

DRAWN = ("report", "docs", "experiments", "bench")
"""Folders of tests that look at drawings, or whose programs are about them."""


def is_drawn(path: pathlib.Path) -> bool:
    """Whether tests of a file see reports with drawings."""
    return path.relative_to(pathlib.Path(__file__).parent).parts[0] in DRAWN


def leave_charts_blank(patch: pytest.MonkeyPatch) -> None:
    """Let reports of runs have each drawing's place, title and note, and nothing in it."""
    from markupsafe import Markup

    from tpdiff_jax.report import page, result_sections, training_sections
    from tpdiff_jax.report.svg import Chart

    def blank_chart(*drawn: Any, title: str, note: str = "", **look: Any) -> Chart:
        return Chart(title, note, Markup("<svg></svg>"))

    patch.setattr(page, "schedule_figure", lambda *drawn: blank_chart(title="Noise schedule"))
    for module in (result_sections, training_sections):
        patch.setattr(module, "line_chart", blank_chart)
    patch.setattr(training_sections, "bar_chart", blank_chart)
