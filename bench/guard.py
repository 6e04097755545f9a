"""What the guard against bad steps costs: training steps with it and without, in turn.

    python -m bench.guard --config=configs/flow.py --out=runs/guard

Any config and any `--config.GROUP.FIELD=VALUE`, on any device. Prints, for each stage, how much
longer a guarded step takes, and writes guard.json and guard.md into --out. On CPUs that others use
too, `--clock=cpu` counts the seconds that this process had. Exit codes: 0 done; 2 bad input.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from bench.report_files import facts, write_report
from bench.step_case import step_case
from bench.timing import CLOCK_NAMES, CLOCKS, add_clock_flag, quartiles, time_interleaved
from experiments.command_line import command_parser, output_folder
from experiments.grid.overrides import parse_overrides, read_config
from experiments.pages.markdown import table
from tpdiff_jax.devices.host_memory import reuse_large_blocks
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.train_state import TrainState, TrainTask
from tpdiff_jax.train_step import apply_gradients, loss_and_grads, train_step
from tpdiff_jax.types import Array, PRNGKey

EXIT_BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Time, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options, rest = _parser().parse_known_args(arguments)
    reuse_large_blocks()  # as training does
    try:
        experiment = build_experiment(read_config(options.config, parse_overrides(rest)))
    except ValueError as error:
        print(f"guard: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    stages = options.stages or range(experiment.pyramid.num_stages)
    report = {
        **facts("guard", arguments),
        "clock": options.clock,
        "rounds": options.rounds,
        "steps": measure(experiment, stages, options),
    }
    write_report(options.out, "guard", report, write_page(report))
    return 0


def measure(
    experiment: Experiment, stages: Sequence[int], options: argparse.Namespace
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the seconds of an unguarded step and the share by which a guarded one is longer.

    Returns:
        `stage I` -> figures, and `mean of them` for a step of any stage alike.
    """
    kinds = {"guarded": train_step, "unguarded": unguarded_step}
    cases = {
        f"{kind} {i}": step_case(experiment, i, step)
        for i in stages
        for kind, step in kinds.items()
    }
    seconds = time_interleaved(
        cases,
        rounds=options.rounds,
        min_seconds=options.min_milliseconds / 1e3,
        clock=CLOCKS[options.clock],
    )
    means = {
        name: {kind: np.mean([seconds[f"{kind} {i}"] for i in those], axis=0) for kind in kinds}
        for name, those in {**{f"stage {i}": [i] for i in stages}, "mean of them": stages}.items()
    }
    return {
        name: {
            "unguarded_seconds": quartiles(mean["unguarded"])._asdict(),
            "extra_share": quartiles(mean["guarded"] / mean["unguarded"] - 1.0)._asdict(),
        }
        for name, mean in means.items()
    }


def write_page(report: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    device = report["device"]
    rows = [
        [
            name,
            _spread(row["unguarded_seconds"], 1e3, ".1f"),
            _spread(row["extra_share"], 1e2, "+.2f"),
        ]
        for name, row in report["steps"].items()
    ]
    return "\n".join(
        [
            "# What the guard costs",
            "",
            f"`{report['command']}`",
            "",
            f"{device['kind']}, {device['cpu_cores']} cores; {report['rounds']} rounds, all kinds "
            f"of step in turn, {CLOCK_NAMES[report['clock']]}; median [quartiles], ratios within a "
            "round.",
            "",
            table(["", "a step without the guard, ms", "added by the guard, %"], rows),
            "",
        ]
    )


def _spread(value: dict[str, float], unit: float, digits: str) -> str:
    median, low, high = (f"{unit * value[name]:{digits}}" for name in ("median", "low", "high"))
    return f"{median} [{low}, {high}]"


def unguarded_step(
    task: TrainTask, stage_index: int, state: TrainState, batch: dict[str, Any], key: PRNGKey
) -> tuple[TrainState, dict[str, Array]]:
    """`train_step` as it would be without its guard."""
    step_key = jax.random.fold_in(key, state.step)
    (loss, metrics), grads = loss_and_grads(task, stage_index, state.params, batch, step_key)
    metrics |= {"loss": loss, "grad_norm": optax.tree.norm(grads)}
    return apply_gradients(task, state, grads)._replace(step=state.step + 1), metrics


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.guard", __doc__)
    parser.add_argument("--config", default="configs/flow.py", help="config file")
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--stages", type=int, nargs="*", help="stages to time; default all")
    parser.add_argument("--rounds", type=int, default=21, help="timings of each case")
    parser.add_argument(
        "--min_milliseconds", type=float, default=20.0, help="shorter work repeats until this long"
    )
    add_clock_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
