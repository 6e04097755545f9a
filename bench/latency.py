"""Latency of sampling: a config and its vanilla twin, in the form of the paper's table.

    python -m bench.latency --configs=configs/flow.py,configs/ddim.py --out=runs/latency

Each twin makes the same number of network calls, with fresh parameters and conditions of ones:
time does not depend on what they are. The samplers of all configs take turns in one run; ratios are
taken within a round. Seconds are those of `--videos` videos at once, until they are on the host,
compilation excluded. `--config.GROUP.FIELD=VALUE` goes to all configs. Writes latency.json and
latency.md.

Exit codes: 0 done; 2 bad input.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bench.cost_cases import Twins, build_twins
from bench.report_files import facts, write_report
from bench.timing import FloatArray, quartiles, time_interleaved
from experiments.command_line import command_parser, output_folder, split_names
from experiments.grid.overrides import parse_overrides
from experiments.pages.markdown import median_and_quartiles, number, table
from tpdiff_jax.devices.host_memory import reuse_large_blocks
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.training.initial_state import abstract_params
from tpdiff_jax.types import Array, Params

EXIT_BAD_INPUT = 2
_NOTE = (
    "Medians [quartiles] over rounds; the ratio is vanilla's time over the pyramid's. The paper "
    "has, for 30 steps in all: MiniFlux-vid 20.79 s and 12.18 s (1.71x), AnimateDiff 6.01 s and "
    "4.04 s (1.49x), Wan2.1-1.3B with LoRA 50.52 s and 27.76 s (1.82x)."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Time, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options, rest = _parser().parse_known_args(arguments)
    reuse_large_blocks()  # as training does
    try:
        overrides = {**parse_overrides(rest), "sample.batch_size": str(options.videos)}
        twins = {path: build_twins(path, overrides) for path in split_names(options.configs)}
    except ValueError as error:
        print(f"latency: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    report = facts("latency", arguments) | measure(twins, options.videos, options.rounds)
    write_report(options.out, "latency", report, write_page(report))
    return 0


def measure(twins: Mapping[str, Twins], num_videos: int, rounds: int) -> dict[str, Any]:
    """Return facts, raw timings and one row for each config."""
    cases = {
        f"{path} {twin}": sampling_case(experiment, num_videos)
        for path, pair in twins.items()
        for twin, experiment in pair.by_name().items()
    }
    with Progress(rounds, label="latency", unit="round") as progress:
        seconds = time_interleaved(cases, rounds=rounds, min_seconds=0.0, on_round=progress.update)
    return {
        "videos": num_videos,
        "seconds": {name: column.tolist() for name, column in seconds.items()},
        "rows": [latency_row(path, pair, seconds) for path, pair in twins.items()],
    }


def sampling_case(experiment: Experiment, num_videos: int) -> Callable[[], Any]:
    """Return a function that samples videos with fresh parameters.

    Args:
        experiment: need not have any clips.
        num_videos: videos at once.
    """
    params, sampler = quick_params(abstract_params(experiment)), Sampler(experiment)
    shapes = experiment.clip_facts.cond_shapes
    cond = {name: np.ones((num_videos, *shape), dtype) for name, (shape, dtype) in shapes.items()}
    return lambda: sampler(params, cond, seed=0, batch_size=num_videos)


def quick_params(shapes: Params) -> Params:
    """Return small normal numbers in the place of parameters, the same ones in each of them.

    A program that draws every parameter of a network without equal blocks by itself takes longer
    to compile than the network.

    Args:
        shapes: with types and shardings.
    """
    leaves = jax.tree.leaves(shapes)
    numbers = np.random.default_rng(0).standard_normal(max(a.size for a in leaves), np.float32)
    numbers *= 0.02

    def draw(a: jax.ShapeDtypeStruct) -> Array:
        return jax.device_put(numbers[: a.size].reshape(a.shape).astype(a.dtype), a.sharding)

    return jax.tree.map(draw, shapes)


def latency_row(path: str, twins: Twins, seconds: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Return the figures of one config."""
    vanilla, pyramid = (seconds[f"{path} {twin}"] for twin in ("vanilla", "pyramid"))
    flops = {twin: Sampler(experiment).flops() for twin, experiment in twins.by_name().items()}
    return {
        "config": path,
        "steps": list(twins.pyramid.sampler.steps_per_stage),
        "vanilla_steps": list(twins.vanilla.sampler.steps_per_stage),
        "vanilla": quartiles(vanilla)._asdict(),
        "pyramid": quartiles(pyramid)._asdict(),
        "ratio": quartiles(vanilla / pyramid)._asdict(),
        "flop_ratio": flops["vanilla"] / flops["pyramid"],
    }


def write_page(report: Mapping[str, Any]) -> str:
    """Return the table as Markdown."""
    device = report["device"]
    rows = [
        [
            row["config"],
            " + ".join(map(str, row["steps"])),
            *(median_and_quartiles(row[name]) for name in ("vanilla", "pyramid", "ratio")),
            number(row["flop_ratio"]),
        ]
        for row in report["rows"]
    ]
    header = ["config", "steps", "vanilla, s", "pyramid, s", "ratio", "FLOP model"]
    facts = f"{device['platform']}, {device['kind']}, {device['num_devices']} device(s)"
    intro = f"{report['videos']} video(s) at once on {facts}. Command: `{report['command']}`"
    return "\n\n".join(["# Latency of sampling", intro, table(header, rows), _NOTE]) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.latency", __doc__)
    parser.add_argument("--configs", default="configs/flow.py,configs/ddim.py", help="config files")
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--videos", type=int, default=1, help="videos at once")
    parser.add_argument("--rounds", type=int, default=7, help="timings of each sampler")
    return parser


if __name__ == "__main__":
    sys.exit(main())
