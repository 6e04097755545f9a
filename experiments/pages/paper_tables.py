"""The paper's tables: its figures as far as they are known here, beside measured ones, as Markdown.

Cells of the paper that are not listed were not at hand when this was written; `-` stands for them.

Source: Ran & Shou, arXiv 2503.09566, Tables 1 to 3, and the ICLR 2026 version for Wan2.1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.pages.markdown import NONE, median_and_quartiles, number, table

SECONDS: Mapping[str, tuple[float, float]] = {
    "miniflux": (20.79, 12.18),
    "animatediff": (6.01, 4.04),
    "wan": (50.52, 27.76),
}
"""Table 1: seconds of 30 network calls, vanilla and pyramid."""
SCORES: Mapping[str, Mapping[str, float]] = {
    "animatediff": {"total": 73.65, "multiple_objects": 39.42},
    "animatediff_tpdiff": {"total": 74.96, "multiple_objects": 31.15},
    "miniflux": {"total": 77.69, "spatial_relationship": 49.79},
    "miniflux_tpdiff": {"total": 78.52, "spatial_relationship": 42.23},
}
"""Table 2: VBench's scores in per cent, by row and column."""
ALIGNMENT: Mapping[str, Mapping[str, float]] = {
    "miniflux_unaligned": {"fvd": 602.1, "clipsim": 29.34},
    "miniflux_tpdiff": {"fvd": 562.6, "clipsim": 29.76},
    "animatediff_unaligned": {"fvd": 834.5, "clipsim": 28.21},
    "animatediff_tpdiff": {"fvd": 782.6, "clipsim": 28.91},
}
"""Table 3: pyramids trained without and with alignment."""


def beside_published(
    columns: Sequence[str],
    measured: Mapping[str, Mapping[str, float]],
    published: Mapping[str, Mapping[str, float]],
) -> str:
    """Return a table with two lines a system: what was measured, and what the paper prints.

    Args:
        columns: figures, in order.
        measured: by system and figure; a figure may be missing.
        published: likewise; a system that it lacks has one line.
    """
    rows = []
    for name, figures in measured.items():
        rows.append([name, "measured", *_cells(columns, figures)])
        if name in published:
            rows.append([name, "paper", *_cells(columns, published[name])])
    return table(["system", "", *(name.replace("_", " ") for name in columns)], rows)


def latency_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return Table 1.

    Args:
        rows: of `bench.latency`, each with its `system`.
    """
    lines = []
    for row in rows:
        paper = [NONE, NONE, NONE]
        if row["system"] in SECONDS:
            vanilla, pyramid = SECONDS[row["system"]]
            paper = [number(vanilla, 4), number(pyramid, 4), number(vanilla / pyramid)]
        lines.append(
            [
                row["system"],
                " + ".join(map(str, row["steps"])),
                *(median_and_quartiles(row[name]) for name in ("vanilla", "pyramid", "ratio")),
                number(row["flop_ratio"]),
                *paper,
            ]
        )
    header = ["system", "steps", "vanilla, s", "pyramid, s", "ratio", "ceiling by FLOPs"]
    return table([*header, "paper: vanilla, s", "pyramid, s", "ratio"], lines)


def _cells(columns: Sequence[str], figures: Mapping[str, float]) -> list[str]:
    return [number(figures.get(name), 4) for name in columns]
