"""How much sooner the pyramid and the alignment reach the vanilla run's quality.

    python -m experiments.convergence --out=runs/convergence --seeds=0,1,2,3,4
    --config.train.num_steps=2000 --config.train.eval_every_steps=200

Trains vanilla diffusion (neither), both, the pyramid alone and the alignment alone, for flow and
DDIM, at equal training FLOPs of the network and a constant learning rate; `train.num_steps` and
`train.eval_every_steps` are vanilla's. Targets are what each vanilla run has reached for good at
shares of its own budget: a young network's noise can meet a target by chance and lose it again
(--reached=first counts that). Curves become monotone envelopes, interpolated log-log, never
extrapolated; pairs share a seed and give a t interval on the log ratio. FLOPs count all that a step
executes, optimizer, alignment and moving average included. --grid=pyramid_shapes compares stage
counts, shares and factors, --grid=upsampling ways to upsample, --grid=natural those and more at the
config's own falling rate. Where the rate falls, a curve's early points are not what a shorter run
would have reached: --lengths=0.4,0.6,1 trains each arm anew for these shares of its steps, and the
curve goes through the ends (of a baseline the longest alone). --learning_rates gives every arm the
same sweep first.

The same command resumes what is unfinished and skips what is finished; runs go seed by seed, so
that a stopped grid can be summed up with --only=summary.

Writes into --out: runs/, sweep/, summary.json, convergence.md, convergence.html, curves.* and
speedups.* (png, svg).

Exit codes: 0 done; 1 some run failed, the pages show the others; 2 bad input; 3 stopped.
"""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.analysis.aggregate import end_differences, pairs_by_seed, summarize
from experiments.analysis.curves import AXES, Curve, join_ends, only_whole, read_curve
from experiments.analysis.speedup import REACHED, speed_up
from experiments.command_line import command_parser, output_folder, split_names, split_seeds
from experiments.compare import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_STOPPED,
    check_metrics,
    select_arms,
    show_plan,
)
from experiments.compare import METRICS as SHOWN
from experiments.grid.arms import Arm, Grid
from experiments.grid.counted_flops import StepCost, count_step_cost, with_counted_flops
from experiments.grid.grids import GRIDS
from experiments.grid.overrides import parse_overrides
from experiments.grid.plan import PlannedRun, open_here, plan_runs, use_cpu_for_planning
from experiments.grid.run_queue import LOG_FILE, Stopped, run_all
from experiments.learning_rates import choose_rates, sweep_grid, with_rates
from experiments.pages.convergence_page import html_page, markdown_page
from experiments.pages.figures import draw_curves, draw_speedups
from tpdiff_jax.devices.origin import run_origin
from tpdiff_jax.digits.figures import DIGIT_METRICS as INFOS
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import write_json

CONVERGENCE_GRIDS = ("convergence", "upsampling", "natural", "pyramid_shapes")
METRICS = ("frechet", "speed_wasserstein")
FIGURE_SHARES = tuple(percent / 100 for percent in range(30, 101, 5))


class Plan(NamedTuple):
    """What is compared, by which runs, at which rates, and which runs of the sweep have failed."""

    arms: list[Arm]
    runs: list[PlannedRun]
    rates: dict[str, float]
    failed: list[PlannedRun]


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep, run, sum up; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options, rest = _parser().parse_known_args(arguments)
    metrics = split_names(options.metrics)
    try:
        overrides = parse_overrides(rest)
        check_metrics(metrics, metrics)
        use_cpu_for_planning()
        plan = make_plan(options, overrides, metrics[0])
        show_plan(plan.runs)
        if options.only == "plan":
            return 0
        failed = run_all(plan.runs, workers=options.workers) if options.only == "all" else []
        command = shlex.join(["python", "-m", "experiments.convergence", *arguments])
        asked = {"reached": options.reached, "lengths": options.lengths}
        setting = {"command": command, "rates": plan.rates, **asked}
        write_pages(options.out, plan, metrics, run_origin() | setting)
    except ValueError as error:
        print(f"convergence: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Stopped as stop:
        print(f"convergence: {stop}", file=sys.stderr)
        return EXIT_STOPPED
    failed = plan.failed + failed
    for run in failed:
        print(f"failed: {run.workdir.name}, see {run.workdir / LOG_FILE}", file=sys.stderr)
    return EXIT_FAILED if failed else 0


def make_plan(options: argparse.Namespace, overrides: Mapping[str, str], metric: str) -> Plan:
    """Return the runs; with --learning_rates, sweep first and give each arm its own rate.

    Raises:
        ValueError: for an invalid option or config, or a sweep without a figure to choose by.
        Stopped: after SIGTERM or Ctrl-C during the sweep.
    """
    grid = GRIDS[options.grid]
    arms = select_arms(grid, split_names(options.arms))
    seeds = split_seeds(options.seeds)
    rates = [float(rate) for rate in split_names(options.learning_rates)]
    lengths = [float(share) for share in split_names(options.lengths)]
    chosen: dict[str, float] = {}
    failed: list[PlannedRun] = []
    if rates:
        if options.sweep_seed in seeds:
            raise ValueError(f"--sweep_seed={options.sweep_seed} must not be one of --seeds")
        chosen, failed = sweep(options, grid, arms, overrides, rates, metric)
        arms = with_rates(arms, chosen) if chosen else arms
    runs = plan_runs(grid, arms, overrides, seeds, options.out, lengths)
    return Plan(arms, runs, chosen, failed)


def sweep(
    options: argparse.Namespace,
    grid: Grid,
    arms: Sequence[Arm],
    overrides: Mapping[str, str],
    rates: Sequence[float],
    metric: str,
) -> tuple[dict[str, float], list[PlannedRun]]:
    """Run every arm at every rate on the sweep's seed.

    Returns:
        The best rate of each arm, none where a plan alone is asked for and not all have run; and
        the runs that have failed.
    """
    swept = sweep_grid(grid, arms, rates)
    folder = options.out / "sweep"
    runs = plan_runs(swept, swept.arms, overrides, [options.sweep_seed], folder)
    show_plan(runs)
    failed = run_all(runs, workers=options.workers) if options.only == "all" else []
    curves = {run.arm: read_curve(run.arm, run.seed, run.workdir) for run in runs}
    info = next(info for info in INFOS if info.name == metric)._asdict()
    if options.only == "plan" and any(curve.results is None for curve in curves.values()):
        return {}, failed
    chosen = choose_rates(arms, rates, curves, metric, info)
    print("learning rates: " + ", ".join(f"{arm} {rate:g}" for arm, rate in chosen.items()))
    return chosen, failed


def write_pages(
    out: pathlib.Path, plan: Plan, metrics: Sequence[str], setting: Mapping[str, Any]
) -> None:
    """Write summary.json, the pages and the figures."""
    costs = {arm.name: cost_of_arm(arm.name, plan.runs) for arm in plan.arms}
    curves = [
        with_counted_flops(read_curve(run.arm, run.seed, run.workdir), costs[run.arm])
        for run in plan.runs
    ]
    ends = curves
    if setting["lengths"]:
        ends = joined_lengths(curves)
        curves = only_whole(ends, longest_runs(plan.runs))
    curves, ends = ([curve for curve in some if curve.y] for some in (curves, ends))
    reached = setting["reached"]
    summary = {**setting, **summarize(plan.arms, curves, metrics, reached)}
    summary["step_flops"] = {arm: cost._asdict() for arm, cost in costs.items()}
    summary["sample_flops"] = _sample_flops(curves)
    baselines = {arm.name: arm.baseline for arm in plan.arms if arm.baseline}
    whole = {run.arm: run.flops for run in plan.runs if run.arm not in baselines}
    shares = {
        (run.arm, run.num_steps): round(run.flops / whole[baselines[run.arm]], 2)
        for run in plan.runs
        if run.arm in baselines
    }
    summary["end_differences"] = end_differences(ends, baselines, shares)
    summary["speedups_by_target"] = speedups_by_target(plan.arms, curves, summary, metrics)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "summary.json", summary)
    write_durably(out / "convergence.md", markdown_page(summary, SHOWN))
    shown = tuple(dict.fromkeys((*metrics, *SHOWN)))
    figures = {
        "Speed-ups over the target": draw_speedups(
            out / "speedups", summary["speedups_by_target"], metrics
        ),
        "Curves": draw_curves(out / "curves", curves, shown, summary["references"], tuple(AXES)),
    }
    write_durably(out / "convergence.html", html_page(summary, SHOWN, figures))
    print(f"wrote {out / 'convergence.html'}, convergence.md, summary.json")


def joined_lengths(curves: Sequence[Curve]) -> list[Curve]:
    """Return one curve for each arm and seed, through the ends of its runs.

    Args:
        curves: of runs of several lengths.
    """
    names = dict.fromkeys((curve.arm, curve.seed) for curve in curves)
    groups = ([curve for curve in curves if (curve.arm, curve.seed) == name] for name in names)
    return [joined for joined in map(join_ends, groups) if joined is not None]


def longest_runs(runs: Sequence[PlannedRun]) -> dict[str, int]:
    """Return the steps of each arm's longest run."""
    longest: dict[str, int] = {}
    for run in runs:
        longest[run.arm] = max(run.num_steps, longest.get(run.arm, 0))
    return longest


def speedups_by_target(
    arms: Sequence[Arm], curves: Sequence[Curve], summary: Mapping[str, Any], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row for each arm, figure and axis: speed-ups over the targets."""
    rows = []
    for arm in arms:
        pairs = pairs_by_seed(curves, arm.name, arm.baseline) if arm.baseline else []
        for metric in (metric for metric in metrics if metric in summary["metric_info"]):
            info, reached = summary["metric_info"][metric], summary.get("reached", "first")
            for axis in AXES if pairs else ():
                found = [speed_up(pairs, metric, info, axis, s, reached) for s in FIGURE_SHARES]
                points = [
                    {"share": s, "ratio": f.ratio._asdict(), "low": f.low, "high": f.high}
                    for s, f in zip(FIGURE_SHARES, found, strict=True)
                    if f is not None
                ]
                row = {"arm": arm.name, "metric": metric, "axis": axis, "points": points}
                rows.append(row)
    return rows


def cost_of_arm(name: str, runs: Sequence[PlannedRun]) -> StepCost:
    """Return what the training steps of an arm cost."""
    run = next(run for run in runs if run.arm == name)
    return count_step_cost(open_here(run.config_file, run.overrides))


def _sample_flops(curves: Sequence[Curve]) -> dict[str, float]:
    """FLOPs of one sampled video by arm, by the network's FLOP model."""
    return {
        curve.arm: curve.results["timing"]["sample_flops_per_video"]
        for curve in curves
        if curve.results is not None
    }


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("experiments.convergence", __doc__)
    parser.add_argument("--grid", default="convergence", choices=CONVERGENCE_GRIDS)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="values of train.seed")
    parser.add_argument("--arms", default="", help="only these, with their baselines")
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at a time; above 1, each on its own cores"
    )
    parser.add_argument(
        "--only", choices=("all", "plan", "summary"), default="all", help="stop early, or sum up"
    )
    parser.add_argument(
        "--metrics", default=",".join(METRICS), help="figures to speed up to; the first picks rates"
    )
    parser.add_argument(
        "--reached", choices=REACHED, default="for_good",
        help="a target counts from its first crossing, or from when it is not lost any more",
    )  # fmt: skip
    parser.add_argument(
        "--lengths", default="",
        help="shares of an arm's steps; each a run of its own, measured at its end",
    )  # fmt: skip
    parser.add_argument("--learning_rates", default="", help="rates of a sweep for every arm")
    parser.add_argument("--sweep_seed", type=int, default=1000, help="train.seed of the sweep")
    return parser


if __name__ == "__main__":
    sys.exit(main())
