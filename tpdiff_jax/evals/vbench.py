"""VBench: which videos it wants under which names, the command that scores them, and its totals.

    python -m tpdiff_jax.evals.vbench prompts --info=VBench_full_info.json --out=prompts.txt
    python -m tpdiff_jax.evals.vbench check --info=VBench_full_info.json --videos=FOLDER
    python -m tpdiff_jax.evals.vbench table RESULTS_eval_results.json ...

The first writes one prompt a line; `--dimensions=a,b` takes only what these dimensions need. The
second says which of the videos `PROMPT-0.mp4` to `PROMPT-4.mp4` are missing and prints the command
that scores the others, to be run where the vbench package is installed: it needs its own
environment, and is not needed here. The third turns its results into the paper's table.

    score_d = (raw_d - low_d) / (high_d - low_d)
    quality, semantic = weighted means of their dimensions;  total = (4 quality + semantic) / 5

Source: Huang et al., arXiv 2311.17982; bounds and weights are those of its published leaderboard.
Exit codes: 0 done; 1 videos are missing; 2 bad input; 6 a file could not be written.
"""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tpdiff_jax.checks import counted
from tpdiff_jax.command_line.exit_codes import ExitCode
from tpdiff_jax.files.durable import WriteError, write_durably
from tpdiff_jax.files.json_files import read_json

EXIT_MISSING = 1
VIDEOS_PER_PROMPT = 5  # vbench's loader looks for no more, in any dimension
QUALITY_WEIGHT = 4.0  # the semantic score has 1


class Dimension(NamedTuple):
    """How a raw score enters the totals: its bounds and its weight."""

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0


QUALITY: dict[str, Dimension] = {
    "subject_consistency": Dimension(low=0.1462),
    "background_consistency": Dimension(low=0.2615),
    "temporal_flickering": Dimension(low=0.6293),
    "motion_smoothness": Dimension(low=0.706, high=0.9975),
    "aesthetic_quality": Dimension(),
    "imaging_quality": Dimension(),
    "dynamic_degree": Dimension(weight=0.5),
}
SEMANTIC: dict[str, Dimension] = {
    "object_class": Dimension(),
    "multiple_objects": Dimension(),
    "human_action": Dimension(),
    "color": Dimension(),
    "spatial_relationship": Dimension(),
    "scene": Dimension(high=0.8222),
    "appearance_style": Dimension(low=0.0009, high=0.2855),
    "temporal_style": Dimension(high=0.364),
    "overall_consistency": Dimension(high=0.364),
}
DIMENSIONS = (*QUALITY, *SEMANTIC)
WITHOUT_PROMPTS = (
    *("subject_consistency", "background_consistency", "motion_smoothness"),
    *("dynamic_degree", "aesthetic_quality", "imaging_quality"),
)
"""Dimensions that VBench scores for any videos, its own prompts or not."""
# The paper's columns; dynamic degree and overall consistency are of its ICLR version.
COLUMNS = (
    *("total", "motion_smoothness", "object_class", "multiple_objects"),
    *("spatial_relationship", "dynamic_degree", "overall_consistency"),
)


class Prompt(NamedTuple):
    """A prompt and the dimensions that its videos are scored in."""

    text: str
    dimensions: frozenset[str]


def read_vbench_prompts(path: pathlib.Path, dimensions: Sequence[str] = ()) -> list[Prompt]:
    """Return the prompts of VBench's own list, each text once, in its order.

    Args:
        path: VBench_full_info.json.
        dimensions: only prompts of these; all for none.

    Raises:
        ValueError: for an unknown dimension, a file that is no such list, or a prompt that cannot
            be part of a file's name.
    """
    check_dimensions(dimensions)
    found: dict[str, frozenset[str]] = {}
    for entry in read_json(path, list):
        text = entry.get("prompt_en") if isinstance(entry, dict) else None
        named = entry.get("dimension") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not isinstance(named, list):
            raise ValueError(f"{path}: every entry must have prompt_en and dimension")
        if not text.strip() or any(c in text for c in "/\\\0\r\n"):
            raise ValueError(f"{path}: the prompt {text!r} cannot be part of a file's name")
        found[text] = found.get(text, frozenset()) | frozenset(map(str, named))
    wanted = set(dimensions) or set(DIMENSIONS)
    return [Prompt(text, named) for text, named in found.items() if named & wanted]


def check_dimensions(dimensions: Iterable[str]) -> None:
    """Raise ValueError for a name that is no dimension."""
    if unknown := [name for name in dimensions if name not in DIMENSIONS]:
        raise ValueError(
            f"--dimensions: no {', '.join(unknown)}; there are {', '.join(DIMENSIONS)}"
        )


def video_name(prompt: str, index: int) -> str:
    """Return the file name of a prompt's video."""
    return f"{prompt}-{index}.mp4"


def missing_videos(prompts: Sequence[Prompt], folder: pathlib.Path) -> list[str]:
    """Return the names that a folder lacks."""
    names = [video_name(p.text, i) for p in prompts for i in range(VIDEOS_PER_PROMPT)]
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [name for name in names if name not in there]


def scoring_command(
    folder: pathlib.Path,
    dimensions: Sequence[str],
    out: pathlib.Path,
    *,
    is_own_prompts: bool = False,
) -> str:
    """Return vbench's command line for a folder of named videos.

    Args:
        folder: of the videos.
        dimensions: of VBench to score; empty: all.
        out: folder for the scores.
        is_own_prompts: whether the videos show other prompts than VBench's.

    Returns:
        One line for a shell, quoted.
    """
    named = " ".join(dimensions or DIMENSIONS)
    return shlex.join(
        [
            *("vbench", "evaluate", f"--videos_path={folder}", f"--output_path={out}"),
            f"--mode={'custom_input' if is_own_prompts else 'vbench_standard'}",
            f"--dimension={named}",
        ]
    )


def read_scores(paths: Sequence[pathlib.Path]) -> dict[str, float]:
    """Return the raw score of each dimension from vbench's result files.

    Raises:
        ValueError: for a file that is none, an unknown dimension, one that two files disagree on,
            or a score outside [0, 1].
    """
    scores: dict[str, float] = {}
    for path in paths:
        for name, value in read_json(path, dict).items():
            raw = value[0] if isinstance(value, list) and value else value
            if name not in DIMENSIONS:
                raise ValueError(f"{path}: {name} is no dimension of VBench")
            if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw <= 1:
                raise ValueError(f"{path}: {name} is {raw!r}; allowed: a number from 0 to 1")
            if scores.get(name, raw) != raw:
                raise ValueError(f"{path}: {name} is {raw}, another file says {scores[name]}")
            scores[name] = float(raw)
    return scores


def totals(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return `quality`, `semantic` and `total`; None where a dimension that counts is missing."""
    quality, semantic = _weighted_mean(scores, QUALITY), _weighted_mean(scores, SEMANTIC)
    total = None
    if quality is not None and semantic is not None:
        total = (QUALITY_WEIGHT * quality + semantic) / (QUALITY_WEIGHT + 1.0)
    return {"quality": quality, "semantic": semantic, "total": total}


def _weighted_mean(
    scores: Mapping[str, float], dimensions: Mapping[str, Dimension]
) -> float | None:
    if not dimensions.keys() <= scores.keys():
        return None
    parts = [d.weight * (scores[name] - d.low) / (d.high - d.low) for name, d in dimensions.items()]
    return sum(parts) / sum(d.weight for d in dimensions.values())


def format_scores(scores: Mapping[str, float]) -> str:
    """Return the paper's table in per cent, as Markdown, and what the totals lack."""
    values = {**scores, **totals(scores)}
    cells = [_percent(values.get(name)) for name in COLUMNS]
    lines = [
        "| " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        "| " + " | ".join(cells) + " |",
    ]
    lacking = [name for name in DIMENSIONS if name not in scores]
    if lacking:
        lines.append(f"\nNo total: not scored in {', '.join(lacking)}.")
    else:
        shares = (f"{name} {_percent(values[name])}" for name in ("quality", "semantic"))
        lines.append("\n" + ", ".join(shares))
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(argv)
    try:
        return _COMMANDS[options.command](options)
    except ValueError as error:
        print(f"vbench: error: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT
    except WriteError as error:
        print(f"vbench: error: {error}", file=sys.stderr)
        return ExitCode.SAVE_FAILED


def _write_prompts(options: argparse.Namespace) -> int:
    prompts = read_vbench_prompts(options.info, _names(options.dimensions))
    write_durably(options.out, "".join(f"{prompt.text}\n" for prompt in prompts))
    number = counted(len(prompts), "prompt")
    print(f"wrote {number} to {options.out}; VBench wants {VIDEOS_PER_PROMPT} videos of each")
    return 0


def _check_videos(options: argparse.Namespace) -> int:
    dimensions = _names(options.dimensions)
    missing = missing_videos(read_vbench_prompts(options.info, dimensions), options.videos)
    for name in missing[:10]:
        print(f"missing: {name}")
    if missing:
        print(f"{len(missing)} videos are missing; scores of the others are not comparable")
    folder = options.videos.resolve()  # `.` has no name
    print(scoring_command(folder, dimensions, folder.with_name(f"{folder.name}_scores")))
    return EXIT_MISSING if missing else 0


def _print_table(options: argparse.Namespace) -> int:
    print(format_scores(read_scores(options.results)))
    return 0


_COMMANDS = {"prompts": _write_prompts, "check": _check_videos, "table": _print_table}


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tpdiff_jax.evals.vbench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prompts", "check"):
        command = commands.add_parser(name, allow_abbrev=False)
        command.add_argument("--info", required=True, type=pathlib.Path)
        command.add_argument("--dimensions", default="", help="joined by commas; all for none")
        if name == "prompts":
            command.add_argument("--out", required=True, type=pathlib.Path)
        else:
            command.add_argument("--videos", required=True, type=pathlib.Path)
    table = commands.add_parser("table")
    table.add_argument("results", nargs="+", type=pathlib.Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
