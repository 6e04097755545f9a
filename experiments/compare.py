"""Run a grid of training runs and show what they say.

    python -m experiments.compare --grid=main --out=runs/main --config.train.num_steps=2000

Grids: experiments/grid/grids.py. Every `--config.GROUP.FIELD=VALUE` goes to all runs; arms override
it. `train.num_steps` and the periods are those of the grid's reference arm; the other arms train
for equal training FLOPs. The same command resumes what is unfinished and skips what is finished.

Writes into --out: runs/ARM_seed_N/ (ordinary run folders, their output in log.txt), summary.json,
summary.md, curves.png, curves.svg.

Exit codes: 0 done; 1 some run failed, the summary shows the others; 2 bad input; 3 stopped.
"""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.analysis.aggregate import summarize
from experiments.analysis.curves import read_curve
from experiments.analysis.speedup import figure_to_cost
from experiments.command_line import command_parser, output_folder, split_names, split_seeds
from experiments.grid.arms import Arm, Grid
from experiments.grid.grids import GRIDS
from experiments.grid.overrides import parse_overrides
from experiments.grid.plan import PlannedRun, plan_runs, use_cpu_for_planning
from experiments.grid.run_queue import LOG_FILE, Stopped, run_all
from experiments.pages.figures import draw_curves
from experiments.pages.markdown import write_summary
from tpdiff_jax.digits.figures import DIGIT_METRICS as INFOS
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import write_json

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_STOPPED = 1, 2, 3
METRICS = (
    *("label_accuracy", "identity_consistency", "speed_wasserstein", "velocity_error"),
    *("acceleration_residual", "even_odd_step", "stray_ink", "frechet"),
)
SPEEDUP_METRICS = ("frechet", "speed_wasserstein", "label_accuracy", "identity_consistency")


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, run, summarize; return the exit code."""
    options, rest = _parser().parse_known_args(argv)
    try:
        overrides = parse_overrides(rest)
        check_metrics(split_names(options.metrics), split_names(options.speedup))
        grid = GRIDS[options.grid]
        arms = select_arms(grid, split_names(options.arms))
        use_cpu_for_planning()
        seeds = split_seeds(options.seeds)
        runs = plan_runs(grid, arms, overrides, seeds, options.out)
        show_plan(runs)
        if options.only == "plan":
            return 0
        failed = run_all(runs, workers=options.workers) if options.only != "summary" else []
    except ValueError as error:
        print(f"compare: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Stopped as stop:
        print(f"compare: {stop}", file=sys.stderr)
        return EXIT_STOPPED
    setting = {"grid": options.grid, "seeds": seeds, "overrides": overrides}
    shown = split_names(options.metrics), split_names(options.speedup)
    write_outputs(options.out, arms, runs, setting, *shown)
    for run in failed:
        print(f"failed: {run.workdir.name}, see {run.workdir / LOG_FILE}", file=sys.stderr)
    return EXIT_FAILED if failed else 0


def select_arms(grid: Grid, names: Sequence[str]) -> list[Arm]:
    """Return the arms of these names and their baselines; all of the grid for no names.

    Raises:
        ValueError: for an unknown name.
    """
    known = [arm.name for arm in grid.arms]
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"--arms: no {', '.join(unknown)}; there are {', '.join(known)}")
    keep = {*names, *(grid.arm(name).baseline for name in names)}
    return [arm for arm in grid.arms if arm.name in keep or not names]


def check_metrics(shown: Sequence[str], speedup: Sequence[str]) -> None:
    """Raise ValueError for a figure that is unknown, or has no speed-up, before hours of runs."""
    known = {info.name: info._asdict() for info in INFOS}
    for name in [*shown, *speedup]:
        if name not in known:
            raise ValueError(f"no figure is called {name}; there are {', '.join(known)}")
    for name in speedup:
        figure_to_cost(np.empty(0), known[name])


def show_plan(runs: Sequence[PlannedRun]) -> None:
    """Print one line for each run."""
    for run in runs:
        state = "finished" if run.is_finished() else f"{run.steps_done()} done"
        print(f"{run.workdir.name:40s} {run.num_steps:7d} steps {run.flops:9.3g} FLOP  {state}")


def write_outputs(
    out: pathlib.Path,
    arms: Sequence[Arm],
    runs: Sequence[PlannedRun],
    setting: dict[str, Any],
    metrics: Sequence[str],
    speedup_metrics: Sequence[str],
) -> None:
    """Write summary.json, summary.md and the curves."""
    curves = [read_curve(run.arm, run.seed, run.workdir) for run in runs]
    curves = [curve for curve in curves if curve.y]
    summary = summarize(arms, curves, speedup_metrics)
    commands = {run.workdir.name: shlex.join(["python", *run.command()[1:]]) for run in runs}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "summary.json", {**setting, **summary, "commands": commands})
    page = write_summary(f"Grid {setting['grid']}", summary, metrics)
    write_durably(out / "summary.md", page)
    drawn = draw_curves(out / "curves", curves, metrics, summary["references"])
    more = ", curves.png, curves.svg" if drawn else ""
    print(f"wrote {out / 'summary.md'}, summary.json{more}")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("experiments.compare", __doc__)
    parser.add_argument("--grid", required=True, choices=sorted(GRIDS))
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--seeds", default="0,1,2", help="values of train.seed")
    parser.add_argument("--arms", default="", help="only these, with their baselines")
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at a time; above 1, each on its own cores"
    )
    parser.add_argument(
        "--only",
        choices=("all", "plan", "summary"),
        default="all",
        help="stop early, or only sum up",
    )
    parser.add_argument("--metrics", default=",".join(METRICS), help="figures in tables and curves")
    parser.add_argument(
        "--speedup", default=",".join(SPEEDUP_METRICS), help="figures to speed up to"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
