"""What the run reached: samples, the metric table, metric curves."""

from typing import Any

from tpdiff_jax.report.charts import Series, line_chart
from tpdiff_jax.report.formats import MISSING, figure, is_number
from tpdiff_jax.report.previews import data_uri, grid_preview
from tpdiff_jax.report.run_files import RunRecord
from tpdiff_jax.report.svg import Chart

_MAX_VIDEO_BYTES = 24_000_000  # of all embedded files together: the page must stay easy to open
_FLOORS = ("frozen", "shuffled")
_NAMES = {"ceiling": "real videos", "frozen": "frozen", "shuffled": "shuffled"}
_LEVELS = {"ceiling": "real", "frozen": "frozen", "shuffled": "shuffled"}
_CLEARLY_WORSE = 0.1  # of the ceiling
_BETTER = {
    "higher": "\N{UPWARDS ARROW} higher",
    "lower": "\N{DOWNWARDS ARROW} lower",
    "match": "= real",
}
_CHART_NOTES = {
    "higher": "higher is better",
    "lower": "lower is better",
    "match": "best where real videos are",
}


def samples_content(run: RunRecord) -> dict[str, Any]:
    """The animated grid, the final MP4s and the grids on the way, as addresses that hold them."""
    room, grid, clips, earlier, remarks = _MAX_VIDEO_BYTES, None, [], [], []
    if run.grid is not None and run.grid.stat().st_size <= room:
        grid = grid_preview(run.grid)
        if grid is None:
            remarks.append(f"samples/{run.grid.name} could not be read.")
        room -= grid.num_bytes if grid else 0
    for path in run.videos:
        if path.stat().st_size > room:
            break
        room -= path.stat().st_size
        address = data_uri("video/mp4", path.read_bytes())
        clips.append({"name": path.stem.replace("_", " "), "address": address})
    for step, path in reversed(run.earlier):
        part = grid_preview(path)
        if part is None:
            remarks.append(f"samples/{path.parent.name}/{path.name} could not be read.")
            continue
        if part.num_bytes > room:
            break
        room -= part.num_bytes
        earlier.append({"step": step, "grid": part})
    if left_out := len(run.videos) - len(clips):
        remarks.append(f"{left_out} more in the folder samples.")
    found = {"grid": grid, "clips": clips, "earlier": earlier[::-1], "remarks": remarks}
    return found if grid or clips or earlier or remarks else {}


def results_content(run: RunRecord) -> dict[str, Any]:
    """Every final metric beside the figure of real videos and of trivial ones."""
    metrics = run.results.get("metrics") or {}
    references = run.results.get("references") or {}
    columns = [name for name in _NAMES if references.get(name)]
    columns += sorted(name for name in references if references[name] and name not in _NAMES)
    rows = [_result_row(run, name, columns) for name in metrics]
    names = [_NAMES.get(column, column) for column in columns]
    content = {"columns": names, "has_ceiling": "ceiling" in columns, "rows": rows}
    return {**content, "caption": _results_caption(run)} if rows else {}


def _results_caption(run: RunRecord) -> str:
    videos = (run.results.get("counts") or {}).get("eval_videos")
    return f"Measures of {figure(videos)} generated videos" if is_number(videos) else "Measures"


def _result_row(run: RunRecord, name: str, columns: list[str]) -> dict[str, Any]:
    value = run.results["metrics"][name]
    about = (run.results.get("metric_info") or {}).get(name) or {}
    references = run.results.get("references") or {}
    others = {column: references[column].get(name) for column in columns}
    direction = about.get("direction", "")
    return {
        "name": name.replace("_", " "),
        "unit": about.get("unit", "") if about.get("unit") != "1" else "",
        "meaning": about.get("meaning", ""),
        "better": _BETTER.get(direction, MISSING),
        "value": figure(value),
        "others": [figure(others[column]) for column in columns],
        "progress": _gauge(value, others, direction),
    }


def metric_charts(run: RunRecord) -> list[Chart]:
    """One small chart per evaluation metric, with its ceiling and floors."""
    names = dict.fromkeys(
        name.removeprefix("eval/")
        for line in run.evaluation
        for name, value in line.items()
        if name.startswith("eval/") and is_number(value)
    )
    charts = [_metric_chart(run, name, f"metric-{i}") for i, name in enumerate(names)]
    return [chart for chart in charts if chart]


def _metric_chart(run: RunRecord, name: str, key: str) -> Chart | None:
    lines = [line for line in run.evaluation if f"eval/{name}" in line]
    references, info = run.results.get("references") or {}, run.results.get("metric_info") or {}
    levels = [(k, label, (references.get(k) or {}).get(name)) for k, label in _LEVELS.items()]
    x, y = [line["step"] for line in lines], [line[f"eval/{name}"] for line in lines]
    return line_chart(
        [Series(label="run", x=x, y=y)],
        key=key,
        title=name.replace("_", " "),
        note=_CHART_NOTES.get((info.get(name) or {}).get("direction", ""), ""),
        references=[(k, label, value) for k, label, value in levels if is_number(value)],
    )


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


def _gauge(value: Any, references: dict[str, Any], direction: str) -> dict[str, Any]:
    """What the last column shows: a bar from 0 to 100, or a text alone."""
    progress = progress_to_ceiling(value, references, direction)
    if progress is None:
        return {"text": MISSING, "grade": "", "width": 0, "is_of_real": False}
    share, starts_at_floor = progress
    if share < 0:  # more than the whole of the real figure away, where no floor tells
        text = "worse than a floor" if starts_at_floor else f"{100 * (1 - share):.0f} % off"
        return {"text": text, "grade": "bad", "width": 0, "is_of_real": False}
    return {
        "text": f"{100 * share:.0f} %",
        "grade": "good" if share >= 0.8 else "fair" if share >= 0.5 else "poor",
        "width": round(100 * min(max(share, 0), 1)),
        "is_of_real": not starts_at_floor,
    }
