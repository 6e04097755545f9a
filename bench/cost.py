"""What the pyramid and the alignment cost, against the FLOP model of the network.

    python -m bench.cost --config=configs/flow.py --out=runs/cost

Any config and any `--config.GROUP.FIELD=VALUE`, on any device. Times training steps of every
stage, samplers and alignment modes in turn, prints ratios and writes cost.json and cost.md.
Exit codes: 0 done; 2 bad input.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from bench import cost_cases
from bench.cost_page import write_page
from bench.cost_summary import Twin, alignment_summary, sampling_summary, training_summary
from bench.report_files import facts, write_report
from bench.timing import CLOCK_NAMES, CLOCKS, FloatArray, add_clock_flag, time_interleaved
from experiments.command_line import command_parser, output_folder, split_names
from experiments.grid.overrides import parse_overrides
from tpdiff_jax.devices.host_memory import reuse_large_blocks
from tpdiff_jax.devices.peak import measure_matmul_flops
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.method import noise_alignment
from tpdiff_jax.run_log.progress import Progress

EXIT_BAD_INPUT = 2
PARTS = ("training", "sampling", "alignment")
OTHER_MODES = tuple(mode for mode in noise_alignment.ALIGNMENT_MODES if mode != "none")


def main(argv: Sequence[str] | None = None) -> int:
    """Time, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options, rest = _parser().parse_known_args(arguments)
    reuse_large_blocks()  # as training does
    try:
        twins = cost_cases.build_twins(options.config, parse_overrides(rest))
        parts = _choices("--parts", options.parts, PARTS)
        modes = _choices("--modes", options.modes, OTHER_MODES)
        report = facts("cost", arguments) | measure(twins, parts, modes, options)
    except ValueError as error:
        print(f"cost: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    write_report(options.out, "cost", report, write_page(report))
    return 0


def measure(
    twins: cost_cases.Twins,
    parts: Sequence[str],
    modes: Sequence[str],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return facts, raw timings and the figures of every part."""
    facts = {name: twin_facts(experiment) for name, experiment in twins.by_name().items()}
    dtype = twins.pyramid.config.model.dtype
    clock = CLOCKS[options.clock]
    peaks = [measure_matmul_flops(dtype, clock=clock)]
    seconds: dict[str, FloatArray] = {}
    all_modes = ("none", *modes) if "alignment" in parts else ()
    if "training" in parts or "alignment" in parts:
        print("compiling the training steps", file=sys.stderr)
        cases = cost_cases.step_cases(twins, all_modes)
        cases |= cost_cases.noise_cases(twins, all_modes)
        seconds |= _time("training", cases, options.rounds, options)
    if "sampling" in parts:
        cases = cost_cases.sampling_cases(twins)
        seconds |= _time("sampling", cases, options.sample_rounds, options)
    peaks.append(measure_matmul_flops(dtype, clock=clock))
    peak = max(peaks) * jax.device_count()
    report: dict[str, Any] = {
        "config": twins.pyramid.config.to_dict(),
        "peak": peak,
        "peaks_before_and_after": peaks,
        "clock": CLOCK_NAMES[options.clock],
        "seconds": {name: column.tolist() for name, column in seconds.items()},
    }
    if "training" in parts:
        mode = twins.pyramid.task.alignment.mode
        report["training"] = training_summary(seconds, facts, mode, peak)
    if "sampling" in parts:
        report["sampling"] = sampling_summary(seconds, facts, peak)
    if "alignment" in parts:
        report["alignment"] = alignment_summary(seconds, facts["pyramid"], modes)
    return report


def twin_facts(experiment: Experiment) -> Twin:
    """Return what the figures need to know of an experiment."""
    stages = range(experiment.pyramid.num_stages)
    return Twin(
        shapes=[stage.shape for stage in experiment.pyramid.stages],
        probs=experiment.train.stage_probs,
        step_flops=[experiment.programs[i].train_flops for i in stages],
        steps=experiment.sampler.steps_per_stage,
        call_flops=[cost_cases.call_flops(experiment, i) for i in stages],
    )


def _time(
    label: str, cases: Mapping[str, Callable[[], Any]], rounds: int, options: argparse.Namespace
) -> dict[str, FloatArray]:
    print(f"warming up {len(cases)} cases", file=sys.stderr)
    with Progress(rounds, label=label, unit="round") as progress:
        return time_interleaved(
            cases,
            rounds=rounds,
            min_seconds=options.min_milliseconds / 1e3,
            on_round=progress.update,
            clock=CLOCKS[options.clock],
        )


def _choices(name: str, text: str, allowed: Sequence[str]) -> list[str]:
    chosen = split_names(text)
    if unknown := sorted(set(chosen) - set(allowed)):
        raise ValueError(f"{name}={','.join(unknown)} must be among {', '.join(allowed)}")
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.cost", __doc__)
    parser.add_argument("--config", default="configs/flow.py", help="config file")
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to time")
    parser.add_argument("--modes", default=",".join(OTHER_MODES), help="alignment modes to time")
    parser.add_argument("--rounds", type=int, default=21, help="timings of each training case")
    parser.add_argument("--sample_rounds", type=int, default=7, help="timings of each sampler")
    parser.add_argument(
        "--min_milliseconds", type=float, default=20.0, help="shorter work repeats until this long"
    )
    add_clock_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
