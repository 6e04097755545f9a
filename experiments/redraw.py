"""Draw the figures of a finished experiment once more, from its summary alone.

    python -m experiments.redraw --summary=docs/results/main.json --out=docs/results/main
    python -m experiments.redraw --summary=docs/results/convergence.json
      --out=docs/results/convergence --metrics=label_accuracy,speed_wasserstein,frechet

Writes OUT_figures.png, means and 95 % intervals at the end of the runs; of a summary that holds its
curves, as those of `experiments.convergence` do, also OUT_curves.png and, where it compares arms to
a baseline, OUT_speedups.png. Nothing is run, and nothing but the summary is read.

Exit codes: 0 done; 2 bad input.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.analysis.curves import AXES, Curve
from experiments.command_line import command_parser, output_file, split_names
from experiments.compare import EXIT_BAD_INPUT, METRICS
from experiments.convergence import speedups_by_target
from experiments.grid.arms import Arm
from experiments.pages.figures import draw_curves, draw_speedups
from experiments.pages.final_figures import draw_final_figures
from tpdiff_jax.files.durable import writing
from tpdiff_jax.files.json_files import read_json


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; return the exit code."""
    options = _parser().parse_args(argv)
    try:
        summary = read_summary(options.summary)
    except ValueError as error:
        print(f"redraw: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    names = redraw(summary, options.out, split_names(options.metrics))
    print(f"wrote {', '.join(names)}")
    return 0


def read_summary(path: pathlib.Path) -> dict[str, Any]:
    """Return a summary.

    Raises:
        ValueError: when it cannot be read, or is not one of `experiments.compare` or
            `experiments.convergence`.
    """
    summary = read_json(path, dict)
    arms = summary.get("arms")
    if not isinstance(arms, list) or not arms or "final" not in arms[0]:
        raise ValueError(f"--summary={path} has no arms with final figures")
    return summary


def redraw(summary: Mapping[str, Any], out: pathlib.Path, metrics: Sequence[str]) -> list[str]:
    """Write what a summary has the numbers for.

    Args:
        summary: what `read_summary` returned.
        out: beginning of the files' names.
        metrics: figures to show.

    Returns:
        Names of the files.
    """
    references = summary["references"]
    with tempfile.TemporaryDirectory() as folder:
        drawn = pathlib.Path(folder)
        draw_final_figures(drawn / "figures", summary["arms"], metrics, references)
        if curves := stored_curves(summary):
            draw_curves(drawn / "curves", curves, metrics, references, tuple(AXES))
            rows = summary.get("speedups", [])
            baselines = {row["arm"]: row["baseline"] for row in rows}
            arms = [Arm(name=arm, overrides={}, baseline=base) for arm, base in baselines.items()]
            targets = list(dict.fromkeys(row["metric"] for row in rows))
            found = speedups_by_target(arms, curves, summary, targets)
            draw_speedups(drawn / "speedups", found, targets)
        names = []
        for path in sorted(drawn.glob("*.png")):
            target = out.with_name(f"{out.name}_{path.name}")
            with writing(target) as temporary:
                shutil.copyfile(path, temporary)
            names.append(target.name)
    return names


def stored_curves(summary: Mapping[str, Any]) -> list[Curve]:
    """Return the curves that a summary holds; [] where it holds none."""
    return [
        Curve(
            arm=row["arm"],
            seed=row["seed"],
            x={axis: np.asarray(values, float) for axis, values in row["x"].items()},
            y={metric: np.asarray(values, float) for metric, values in row["y"].items()},
            results={} if row["is_finished"] else None,
        )
        for row in summary.get("curves", [])
    ]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("experiments.redraw", __doc__)
    parser.add_argument("--summary", required=True, type=pathlib.Path, help="a summary.json")
    parser.add_argument(
        "--out", required=True, type=output_file, help="files, without _figures.png and so on"
    )
    parser.add_argument("--metrics", default=",".join(METRICS), help="figures to show")
    return parser


if __name__ == "__main__":
    sys.exit(main())
