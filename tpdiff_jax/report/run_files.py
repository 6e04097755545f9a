"""Reads what a run left in its directory; every part may be missing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpdiff_jax.files.json_files import MAX_JSON_BYTES, parse_json, read_small_file
from tpdiff_jax.run_log.goodput import GOODPUT_FILE, summarise
from tpdiff_jax.run_log.json_lines import METRICS_FILE, read_metrics


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run's files.

    Attributes:
        workdir: its directory.
        config: content of `config.json`, {} when there is none.
        results: content of `results.json`, {} when there is none.
        train: lines of `metrics.jsonl` that training wrote.
        evaluation: lines of `metrics.jsonl` with `eval/...` figures.
        goodput: what the wall-clock time went into, {} when nothing tells.
        grid: the animated grid of the final samples, or None.
        videos: the final samples' MP4 files, by name.
        earlier: steps and animated grids of the samples on the way, of a run that shows prompts.
        problems: files that could not be read, as sentences.
    """

    workdir: Path
    config: dict[str, Any]
    results: dict[str, Any]
    train: list[dict[str, Any]]
    evaluation: list[dict[str, Any]]
    goodput: dict[str, Any]
    grid: Path | None
    videos: tuple[Path, ...]
    earlier: tuple[tuple[int, Path], ...]
    problems: tuple[str, ...]

    @property
    def stages(self) -> list[dict[str, Any]]:
        """One row a stage, as `results.json` has them."""
        return self.results.get("stages") or []

    @property
    def num_stages(self) -> int:
        """Stages known from the results, the config or the metrics."""
        return len(self.stages) or len(self.config_strides) or 1 + _last_stage(self.train)

    @property
    def config_strides(self) -> list[Any]:
        """Strides that the config asks for: of time where given, else of all axes."""
        pyramid = self.config.get("pyramid")
        fields = pyramid if isinstance(pyramid, dict) else {}
        strides = fields.get("frame_strides") or fields.get("strides")
        return strides if isinstance(strides, list) else []

    def column(self, name: str) -> tuple[list[int], list[float | None]]:
        """Steps and values of one training metric, over the lines that have it."""
        lines = [line for line in self.train if name in line]
        return [line["step"] for line in lines], [line[name] for line in lines]

    def last(self, name: str) -> Any:
        """The newest value of one training metric, or None."""
        values = [v for v in self.column(name)[1] if v is not None]
        return values[-1] if values else None


def read_run(workdir: Path) -> RunRecord:
    """Reads a run's directory.

    Args:
        workdir: the directory.

    Returns:
        The run; unreadable files are named in `problems`.

    Raises:
        ValueError: there is no such directory.
    """
    if not workdir.is_dir():
        raise ValueError(f"workdir: {workdir} is not a directory")
    problems: list[str] = []
    lines = read_metrics(workdir / METRICS_FILE)
    spans = read_metrics(workdir / GOODPUT_FILE)
    evaluation = [line for line in lines if any(name.startswith("eval/") for name in line)]
    samples = workdir / "samples"
    grids = sorted(samples.glob("*.gif"))
    config = _read_json(workdir / "config.json", problems)
    return RunRecord(
        workdir=workdir,
        config=config,
        results=_read_json(workdir / "results.json", problems),
        train=[line for line in lines if "loss" in line],
        evaluation=evaluation,
        goodput=summarise(spans) if spans else {},
        grid=grids[0] if grids else None,
        videos=tuple(sorted(samples.glob("*.mp4"))),
        earlier=_earlier_grids(samples) if _shows_prompts(config) else (),
        problems=tuple(problems),
    )


def _shows_prompts(config: dict[str, Any]) -> bool:
    fields = config.get("sample")
    return isinstance(fields, dict) and bool(fields.get("prompts"))


def _earlier_grids(samples: Path) -> tuple[tuple[int, Path], ...]:
    """Grids of `samples/step_00001000/` and the like; not of folders with a seed in their name."""
    found = []
    for path in sorted(samples.glob("step_*/grid.gif")):
        number = path.parent.name.removeprefix("step_")
        if number.isdigit():
            found.append((int(number), path))
    return tuple(found)


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = parse_json(read_small_file(path, MAX_JSON_BYTES))
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} could not be read: {error}")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path.name} holds no JSON object")
        return {}
    return content


def _last_stage(lines: list[dict[str, Any]]) -> int:
    prefix = "loss_stage_"
    names = {name for line in lines for name in line if name.startswith(prefix)}
    return max((int(name.removeprefix(prefix)) for name in names), default=0)
