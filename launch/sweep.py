r"""Run many settings of one config and compare them.

    python -m launch.sweep --config=configs/flow.py --out=runs/sweep        its own sweep()
    python -m launch.sweep --out=runs/sweep --seeds=0,1 --workers=2 \
      --grid=optim.learning_rate=3e-3,6e-3 --grid=sample.solver=euler,second_order
    python -m launch.sweep --out=runs/sweep --num-points=8 \
      --random="optim.learning_rate=log(1e-3,2e-2)" --random="model.depth=choice(2,4)"

Every `--config.GROUP.FIELD=VALUE` goes to all runs; a point's own values win. Runs go one after
another, or with --workers side by side, each on its own cores; their output is log.txt in their
folder. The same command resumes what is unfinished and skips what is finished.

    python -m launch.sweep --out=/shared/sweep --name=lr --submit="slurm --gpus-per-node=8"

--submit gives each unfinished run to a launcher as a job of its own (slurm ..., gke submit ...,
or tpu_vm run ..., which ends before the next one starts); --out is then a folder that jobs and
this machine share. Once they are done, --only=summary compares them.

Writes into --out: runs/POINT_seed_N/ (ordinary run folders), sweep.json, sweep.md (one table, best
point first), sweep.png and .svg (figures over swept fields), curves.png and .svg (over cost).

Exit codes: 0 done; 1 some run failed, the summary shows the others; 2 bad input; 3 stopped.
"""

import argparse
import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

from experiments.analysis.aggregate import summarize
from experiments.analysis.curves import read_curve
from experiments.command_line import command_parser, output_folder, split_names, split_seeds
from experiments.compare import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_STOPPED,
    METRICS,
    check_metrics,
    show_plan,
)
from experiments.grid.arms import Arm
from experiments.grid.overrides import (
    merge_overrides,
    overrides_to_flags,
    parse_overrides,
    read_config,
)
from experiments.grid.plan import (
    PlannedRun,
    check_folder,
    mean_step_flops,
    open_here,
    use_cpu_for_planning,
)
from experiments.grid.run_queue import LOG_FILE, Stopped, run_all
from experiments.pages.figures import draw_curves
from launch import gke, slurm, tpu_vm
from launch.job import config_file
from launch.names import check_job_name
from launch.runner import Runner
from launch.sweep_points import (
    Point,
    grid_points,
    name_points,
    points_of_config,
    random_points,
)
from launch.sweep_summary import draw_sweep, order_points, write_table
from tpdiff_jax.checks import check_choice
from tpdiff_jax.command_line import ExitCode
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import write_json

LAUNCHERS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "gke": gke.main,
    "slurm": slurm.main,
    "tpu_vm": tpu_vm.main,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is compared.

    Attributes:
        config_file: config of all runs.
        points: name -> fields.
        runs: one for each point and seed, seed by seed.
    """

    config_file: str
    points: Mapping[str, Point]
    runs: Sequence[PlannedRun]


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, run or submit, summarize; return the exit code."""
    options, rest = _parser().parse_known_args(argv)
    try:
        sweep = plan_sweep(options, parse_overrides(rest))
        show_plan(sweep.runs)
        if options.submit is not None and options.only != "summary":
            return submit(sweep, options)
        runner = Runner(is_dry_run=options.dry_run)
        if runner.is_dry_run:
            for run in sweep.runs:
                if not run.is_finished():
                    runner.run(run.command())
            return 0
        failed = run_all(sweep.runs, workers=options.workers) if options.only == "all" else []
    except ValueError as error:
        print(f"sweep: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Stopped as stop:
        print(f"sweep: {stop}", file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print("sweep: stopped", file=sys.stderr)
        return EXIT_STOPPED
    write_outputs(options.out, sweep, split_names(options.metrics), options.sort_by)
    for run in failed:
        print(f"failed: {run.workdir.name}, see {run.workdir / LOG_FILE}", file=sys.stderr)
    return EXIT_FAILED if failed else 0


def plan_sweep(options: argparse.Namespace, base: Mapping[str, str]) -> Sweep:
    """Return the runs; nothing is started before all of them are known to be valid.

    Raises:
        ValueError: when an option or the config of any point is invalid, or a folder holds
            another run than the planned one.
    """
    check_metrics([*split_names(options.metrics), options.sort_by], ())
    check_job_name(f"{options.name}-000")
    config = config_file(options.config)
    seeds = split_seeds(options.seeds) if options.seeds else []
    use_cpu_for_planning()
    points = read_points(options, config)
    runs = []
    for seed in [{"train.seed": str(seed)} for seed in seeds] or [{}]:
        for name, point in points.items():
            texts = merge_overrides(base, point) | seed
            runs.append(plan_run(name, config, texts, options.out))
    return Sweep(config_file=config, points=points, runs=runs)


def read_points(options: argparse.Namespace, config: str) -> dict[str, Point]:
    """Return name -> fields of all points.

    Args:
        options: of the command line.
        config: file whose own `sweep()` is the source where no other is given.

    Raises:
        ValueError: for no or two sources of points, or for one that is malformed.
    """
    if options.grid and options.random:
        raise ValueError("give --grid or --random, not both")
    if options.grid:
        points = grid_points(options.grid)
    elif options.random:
        points = random_points(options.random, options.num_points, options.sweep_seed)
    else:
        points = points_of_config(config)
    if any("train.seed" in point for point in points):
        raise ValueError("train.seed is not swept but repeated: --seeds=0,1,2")
    return dict(zip(name_points(points), points, strict=True))


def plan_run(
    name: str, config_file: str, texts: Mapping[str, str], out: pathlib.Path
) -> PlannedRun:
    """Return one run.

    Raises:
        ValueError: when its config is invalid, or its folder holds another run.
    """
    experiment = open_here(config_file, texts)
    seed, num_steps = experiment.train.seed, experiment.train.num_steps
    run = PlannedRun(
        arm=name,
        seed=seed,
        workdir=out / "runs" / f"{name}_seed_{seed}",
        config_file=config_file,
        overrides=dict(texts),
        config=read_config(config_file, texts),
        num_steps=num_steps,
        flops=num_steps * mean_step_flops(experiment),
    )
    check_folder(run)
    return run


def submit(sweep: Sweep, options: argparse.Namespace) -> int:
    """Give every unfinished run to a launcher, as a job NAME-INDEX; return the exit code.

    Raises:
        ValueError: for an unknown launcher.
        Stopped: after Ctrl-C, which asks for no more machines.
    """
    launcher, *flags = shlex.split(options.submit) or [""]
    check_choice("--submit", launcher, LAUNCHERS)
    failed = []
    for index, run in enumerate(sweep.runs):
        if run.is_finished():
            continue
        job = [f"--name={options.name}-{index:03d}", f"--config={sweep.config_file}"]
        job += [f"--workdir={run.workdir}", *overrides_to_flags(run.overrides)]
        job += ["--dry-run"] if options.dry_run else []
        print(f"# {shlex.join(['python', '-m', f'launch.{launcher}', *flags, *job])}", flush=True)
        code = LAUNCHERS[launcher]([*flags, *job])
        if code == EXIT_BAD_INPUT:  # which the next job would share
            return code
        if code == ExitCode.INTERRUPTED:
            raise Stopped(f"stopped at {run.workdir.name}; the same command goes on from there")
        if code:
            failed.append(run.workdir.name)
    if failed:
        print(f"sweep: not done: {', '.join(failed)}", file=sys.stderr)
    return EXIT_FAILED if failed else 0


def write_outputs(out: pathlib.Path, sweep: Sweep, metrics: Sequence[str], sort_by: str) -> None:
    """Write sweep.json, sweep.md and the plots."""
    curves = [read_curve(run.arm, run.seed, run.workdir) for run in sweep.runs]
    curves = [curve for curve in curves if curve.y]
    arms = [
        Arm(name=name, overrides=point, config=sweep.config_file)
        for name, point in sweep.points.items()
    ]
    summary = summarize(arms, curves, ())
    order = order_points(summary, sort_by)
    page = write_table(summary, sweep.points, _states(sweep), order, metrics)
    print(page)
    out.mkdir(parents=True, exist_ok=True)
    commands = {run.workdir.name: shlex.join(["python", *run.command()[1:]]) for run in sweep.runs}
    facts = {"config": sweep.config_file, "points": sweep.points, "order": order}
    write_json(out / "sweep.json", {**facts, **summary, "commands": commands})
    write_durably(
        out / "sweep.md", f"# Sweep of {sweep.config_file}\n\nBest {sort_by} first.\n\n{page}\n"
    )
    written = ["sweep.md"]
    if draw_sweep(out / "sweep", summary, sweep.points, metrics):
        written += ["sweep.png"]
    if draw_curves(out / "curves", curves, metrics, summary["references"]):
        written += ["curves.png"]
    print(f"wrote {', '.join([str(out / 'sweep.json'), *written])}")


def _states(sweep: Sweep) -> dict[str, str]:
    """Return name -> how many of its runs have finished, and how far the others are."""
    states = {}
    for name in sweep.points:
        own = [run for run in sweep.runs if run.arm == name]
        steps = [f"{r.steps_done()}/{r.num_steps} steps" for r in own if not r.is_finished()]
        finished = f"{len(own) - len(steps)} of {len(own)} finished"
        states[name] = ", ".join([finished, *steps])
    return states


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("launch.sweep", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument(
        "--config", default="configs/flow.py", help="config of all runs: a file, or a shipped name"
    )
    parser.add_argument("--grid", action="append", default=[], help="FIELD=VALUE,VALUE; repeatable")
    parser.add_argument(
        "--random", action="append", default=[], help="FIELD=DISTRIBUTION; repeatable"
    )
    parser.add_argument("--num-points", type=int, default=8, help="of --random")
    parser.add_argument("--sweep-seed", type=int, default=0, help="of --random")
    parser.add_argument("--seeds", default="", help="values of train.seed; default the config's")
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at a time; above 1, each on its own cores"
    )
    parser.add_argument("--submit", help="launcher and its options, one job for each run")
    parser.add_argument("--name", default="sweep", help="jobs of --submit are NAME-000, ...")
    parser.add_argument("--metrics", default=",".join(METRICS), help="figures to show")
    parser.add_argument(
        "--sort-by", default="frechet", help="figure that the best point is best in"
    )
    parser.add_argument(
        "--only", choices=("all", "summary"), default="all", help="summary: run nothing"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be run, and do nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
