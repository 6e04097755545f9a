"""Report sections about what the run reached: samples, metric table, metric curves."""

import base64
from pathlib import Path
from typing import Any

from tpdiff_jax.report import markup
from tpdiff_jax.report.charts import Series, line_chart
from tpdiff_jax.report.markup import MISSING, escape, figure, is_number
from tpdiff_jax.report.run_files import Run

_MAX_VIDEO_BYTES = 24_000_000  # of all embedded files together: the page must stay easy to open
_FLOORS = ("frozen", "shuffled")
_CLEARLY_WORSE = 0.1  # of the ceiling
_BETTER = {"higher": "&uarr; higher", "lower": "&darr; lower", "match": "= real"}
_CHART_NOTES = {
    "higher": "higher is better",
    "lower": "lower is better",
    "match": "best where real videos are",
}


def samples_section(run: Run) -> str:
    """The animated grid and the final MP4s, embedded."""
    parts, room = [], _MAX_VIDEO_BYTES
    if run.grid is not None and run.grid.stat().st_size <= room:
        room -= run.grid.stat().st_size
        parts.append(f"<img class='grid' alt='Sampled videos' src='{_data_uri(run.grid)}'>")
    clips = []
    for path in run.videos:
        if path.stat().st_size > room:
            break
        room -= path.stat().st_size
        name = escape(path.stem.replace("_", " "))
        clips.append(
            f"<figure class='clip'><video src='{_data_uri(path)}' autoplay loop muted playsinline>"
            f"</video><figcaption>{name}</figcaption></figure>"
        )
    if clips:
        parts.append(f"<div class='clips'>{''.join(clips)}</div>")
    left_out = len(run.videos) - len(clips)
    if left_out:
        parts.append(f"<p class='small'>{left_out} more in the folder samples.</p>")
    return f"<div class='samples'>{''.join(parts)}</div>" if parts else ""


def results_section(run: Run) -> str:
    """Every final metric beside the figure of real videos and of trivial ones."""
    metrics = run.results.get("metrics") or {}
    if not metrics:
        return ""
    info, references = run.results.get("metric_info") or {}, run.results.get("references") or {}
    names = {"ceiling": "real videos", "frozen": "frozen", "shuffled": "shuffled"}
    columns = [name for name in ("ceiling", *_FLOORS) if references.get(name)]
    columns += sorted(name for name in references if references[name] and name not in names)
    headers = ["metric", "better", "result"]
    headers += [escape(names.get(column, column)) for column in columns]
    rows = []
    for name, value in metrics.items():
        about = info.get(name) or {}
        others = {column: references[column].get(name) for column in columns}
        meaning, unit = about.get("meaning", ""), about.get("unit", "")
        label = escape(name.replace("_", " "))
        label += f" <small>{escape(unit)}</small>" if unit not in ("", "1") else ""
        label += f"<p class='meaning'>{escape(meaning)}</p>" if meaning else ""
        direction = about.get("direction", "")
        cells = [_BETTER.get(direction, MISSING), f"<b>{figure(value)}</b>"]
        cells += [figure(others[column]) for column in columns]
        rows.append([label, *cells, _gauge(value, others, direction)])
    headers.append("towards real videos" if "ceiling" in columns else "")
    note = (
        "<p class='small'>Real videos are the ceiling: the same measure on clips of the test"
        " split. Frozen and shuffled videos are floors: real clips whose first frame stands still,"
        " or whose frames are in random order. The bar runs from the nearest floor that is clearly"
        " worse than real videos up to them; without such a floor it is the share of their"
        " figure.</p>"
    )
    return note + markup.table(headers, rows, "results")


def metric_curves_section(run: Run) -> str:
    """One small chart per evaluation metric, with its ceiling and floors."""
    names = dict.fromkeys(
        name.removeprefix("eval/")
        for line in run.evaluation
        for name, value in line.items()
        if name.startswith("eval/") and is_number(value)
    )
    references, info = run.results.get("references") or {}, run.results.get("metric_info") or {}
    styles = [("ceiling", "real", "ceiling"), ("frozen", "frozen", "floor0")]
    styles.append(("shuffled", "shuffled", "floor1"))
    charts = []
    for name in names:
        lines = [line for line in run.evaluation if f"eval/{name}" in line]
        levels = [(label, (references.get(k) or {}).get(name), style) for k, label, style in styles]
        known = [(label, value, style) for label, value, style in levels if is_number(value)]
        direction = (info.get(name) or {}).get("direction", "")
        charts.append(
            line_chart(
                [
                    Series(
                        label="run",
                        x=[line["step"] for line in lines],
                        y=[line[f"eval/{name}"] for line in lines],
                    )
                ],
                title=name.replace("_", " "),
                note=_CHART_NOTES.get(direction, ""),
                references=known,
            )
        )
    return f"<div class='charts'>{''.join(charts)}</div>" if any(charts) else ""


def progress_to_ceiling(
    value: Any, references: dict[str, Any], direction: str
) -> tuple[float, bool] | None:
    """How far a figure has come: (value - floor)/(ceiling - floor), or value/ceiling.

    The floor is the one nearest to the ceiling among those that are clearly worse. Others tell
    nothing: frozen and shuffled real videos are as smooth or as legible as real ones. Without a
    floor a metric whose higher values are better is compared with the ceiling itself. Where a
    figure should match the ceiling, its distance from it takes the figure's place.

    Args:
        value: the run's figure.
        references: figures of `ceiling`, `frozen` and `shuffled`; any may be missing.
        direction: "higher", "lower" or "match"; anything else has no better side.

    Returns:
        The share and whether it starts at a floor (then below 0 is worse than the floor), or None
        without a direction or ceiling, or where neither form applies.
    """
    ceiling = references.get("ceiling")
    if direction not in _BETTER or not is_number(value) or not is_number(ceiling):
        return None

    def shortfall(number: float) -> float:  # 0 at the ceiling, positive where worse
        gap = {"higher": ceiling - number, "lower": number - ceiling}
        return gap.get(direction, abs(number - ceiling))

    known = [references[name] for name in _FLOORS if is_number(references.get(name))]
    worse = [gap for gap in map(shortfall, known) if gap > _CLEARLY_WORSE * abs(ceiling)]
    if worse:
        return 1 - shortfall(value) / min(worse), True
    if direction == "lower" or ceiling <= 0:
        return None
    return 1 - shortfall(value) / ceiling, False


def _gauge(value: Any, references: dict[str, Any], direction: str) -> str:
    progress = progress_to_ceiling(value, references, direction)
    if progress is None:
        return MISSING
    share, starts_at_floor = progress
    if share < 0 and starts_at_floor:
        return "<span class='bad'>worse than a floor</span>"
    grade = "good" if share >= 0.8 else "fair" if share >= 0.5 else "poor"
    kind = "" if starts_at_floor else " <small>of real</small>"
    width = 100 * min(max(share, 0), 1)
    return (
        f"<span class='gauge {grade}'><span style='width:{width:.0f}%'></span></span>"
        f" {100 * share:.0f} %{kind}"
    )


def _data_uri(path: Path) -> str:
    kind = {".gif": "image/gif", ".mp4": "video/mp4"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
