"""What a low-rank training step costs beside a full one, and beside one with merged matrices.

    python -m bench.low_rank --config=configs/flow.py --out=runs/low_rank

Three kinds of step in turn: of all parameters; of low-rank changes (`--rank`, of the matrices whose
paths match `--trained`) beside their matrices, as training does it; and of the same changes merged
into the matrices first, whose gradient then is that of the whole matrix. FLOPs are those of matrix
products in the traced loss and its gradient, over a forward pass of the unchanged network. On CPUs
that others use too, `--clock=cpu` counts the seconds that this process had. Writes low_rank.json
and low_rank.md. Exit codes: 0 done; 2 bad input.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bench.cost_page import spread
from bench.report_files import facts, write_report
from bench.step_case import step_case
from bench.timing import CLOCK_NAMES, CLOCKS, add_clock_flag, quartiles, time_interleaved
from experiments.command_line import command_parser, output_folder
from experiments.grid.overrides import merge_overrides, parse_overrides, read_config
from experiments.pages.markdown import number, table
from tpdiff_jax.devices.host_memory import reuse_large_blocks
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.planning.program_flops import matmul_flops
from tpdiff_jax.train_step import loss_and_grads, train_step
from tpdiff_jax.training.initial_state import abstract_train_state
from tpdiff_jax.training.step_programs import abstract_batch
from tpdiff_jax.types import Params

EXIT_BAD_INPUT = 2
FULL, BESIDE, MERGED = "full", "low rank beside", "low rank merged"


class MergedAdaptation(Adaptation):
    """Low-rank changes that training, too, sees merged into their matrices."""

    def attach(self, trained: Params, frozen: Params) -> Params:
        """Return the network's parameters with the changes in them."""
        return self.merge(trained, frozen)


def main(argv: Sequence[str] | None = None) -> int:
    """Time, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options, rest = _parser().parse_known_args(arguments)
    reuse_large_blocks()  # as training does
    try:
        kinds = build_kinds(options, parse_overrides(rest))
    except ValueError as error:
        print(f"low_rank: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    report = facts("low_rank", arguments) | {
        "clock": options.clock,
        "rounds": options.rounds,
        "rank": options.rank,
        "trained": options.trained,
        "rows": measure(kinds, options),
    }
    write_report(options.out, "low_rank", report, write_page(report))
    return 0


def build_kinds(options: argparse.Namespace, overrides: Mapping[str, str]) -> dict[str, Experiment]:
    """Return the experiments by kind of step.

    Raises:
        ValueError: for an invalid config, or a pattern that no matrix matches.
    """
    low_rank = {"adaptation.rank": options.rank, "adaptation.trained": options.trained}
    everything = {"adaptation.rank": 0, "adaptation.trained": ""}
    full, beside = (
        build_experiment(read_config(options.config, merge_overrides(overrides, own)))
        for own in (everything, low_rank)
    )
    adaptation = MergedAdaptation(**dataclasses.asdict(beside.task.adaptation))
    merged = dataclasses.replace(beside, task=beside.task._replace(adaptation=adaptation))
    return {FULL: full, BESIDE: beside, MERGED: merged}


def measure(
    kinds: Mapping[str, Experiment], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Return for each kind its FLOPs over a forward pass, seconds, and share of a full step.

    A step is the mean over the stages that are measured.
    """
    stages = options.stages or range(kinds[FULL].pyramid.num_stages)
    cases = {
        f"{kind} {i}": step_case(experiment, i, train_step)
        for kind, experiment in kinds.items()
        for i in stages
    }
    timed = time_interleaved(
        cases, rounds=options.rounds, min_seconds=0.0, clock=CLOCKS[options.clock]
    )
    seconds = {kind: np.mean([timed[f"{kind} {i}"] for i in stages], axis=0) for kind in kinds}
    forward = sum(forward_flops(kinds[FULL], i) for i in stages)
    return {
        kind: {
            "forward_passes": sum(loss_flops(experiment, i) for i in stages) / forward,
            "seconds": quartiles(seconds[kind])._asdict(),
            "of_full": quartiles(seconds[kind] / seconds[FULL])._asdict(),
        }
        for kind, experiment in kinds.items()
    }


def forward_flops(experiment: Experiment, stage_index: int) -> float:
    """Return the FLOPs of the network's forward passes in a training step."""
    shape = experiment.pyramid.stages[stage_index].shape
    return experiment.batch_sizes[stage_index] * experiment.network.flops(shape)


def loss_flops(experiment: Experiment, stage_index: int) -> float:
    """Return the matrix-product FLOPs of the traced loss and its gradient, pairing included."""
    state, batch = (
        abstract_train_state(experiment),
        abstract_batch(experiment.programs[stage_index]),
    )

    def step(params: Params, frozen: Params, batch: Any) -> Any:
        key = jax.random.key(0)
        return loss_and_grads(experiment.task, stage_index, params, batch, key, frozen)

    return matmul_flops(jax.make_jaxpr(step)(state.params, state.frozen, batch).jaxpr)


def write_page(report: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    device, rows = report["device"], report["rows"]
    cells = [
        [
            kind,
            number(row["forward_passes"]),
            spread(row["seconds"], 1e3),
            spread(row["of_full"]),
        ]
        for kind, row in rows.items()
    ]
    header = ["step", "FLOPs, forward passes", "ms", "of a full step"]
    intro = (
        f"Rank {report['rank']} on the matrices of `{report['trained']}`. {device['kind']}, "
        f"{device['cpu_cores']} cores; {report['rounds']} rounds, all kinds of step in turn, "
        f"{CLOCK_NAMES[report['clock']]}; median [quartiles], ratios within a round. FLOPs are "
        "those of the loss and its gradient; times are of the whole step."
    )
    command = f"`{report['command']}`"
    return (
        "\n\n".join(["# What a low-rank step costs", command, intro, table(header, cells)]) + "\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.low_rank", __doc__)
    parser.add_argument("--config", default="configs/flow.py", help="config file")
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--rank", type=int, default=16, help="of the low-rank changes")
    parser.add_argument("--trained", default="blocks/.*", help="pattern of the changed matrices")
    parser.add_argument("--stages", type=int, nargs="*", help="stages to time; default all")
    parser.add_argument("--rounds", type=int, default=21, help="timings of each case")
    add_clock_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
