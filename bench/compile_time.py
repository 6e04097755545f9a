"""How long the programs of a config take to compile: one by one, and as training does.

    python -m bench.compile_time --config=configs/flow.py --out=runs/compile_time

Every round compiles each stage's training step and the sampler, then all stages as training does,
with the compiler's caches emptied in between; then two starts of a run follow each other, the
second one with the programs that the first has kept on disk (`--compilation_cache`). With
--only=starts that alone is measured, in processor time. Writes compile_time.json and
compile_time.md.
Exit codes: 0 done; 2 bad input.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from bench.cost_page import spread
from bench.report_files import facts, write_report
from bench.timing import quartiles
from experiments.command_line import command_parser, output_folder
from experiments.grid.overrides import parse_overrides, read_config
from experiments.pages.markdown import table
from tpdiff_jax.devices.compilation_cache import open_compilation_cache
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.training.initial_state import abstract_train_state
from tpdiff_jax.training.step_programs import compile_steps, trace_gradient, trace_update

EXIT_BAD_INPUT = 2
PARALLEL, SAMPLER = "all stages, as training compiles them", "sampler"
UPDATE = "update, of all stages"
FIRST, SECOND = "first, nothing kept", "second, programs kept"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options, rest = _parser().parse_known_args(arguments)
    try:
        experiment = build_experiment(read_config(options.config, parse_overrides(rest)))
    except ValueError as error:
        print(f"compile_time: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    cases = {} if options.only == "starts" else programs(experiment)
    report = {
        **facts("compile_time", arguments),
        "config": experiment.config.to_dict(),
        "starts": measure_starts(experiment, options.rounds),
        "seconds": measure(cases, options.rounds) if cases else {},
    }
    write_report(options.out, "compile_time", report, write_page(report))
    return 0


def programs(experiment: Experiment) -> dict[str, Callable[[], Any]]:
    """Return what traces and compiles each program, by name."""
    state, key = abstract_train_state(experiment), jax.random.key(experiment.train.seed)
    sampler, batch_size = Sampler(experiment), experiment.sample.batch_size

    def stage(index: int) -> Callable[[], Any]:
        return lambda: trace_gradient(experiment.programs[index], state, key).lower().compile()

    cases = {stage_name(i): stage(i) for i in range(experiment.pyramid.num_stages)}
    cases[UPDATE] = lambda: trace_update(experiment, state).lower().compile()
    cases[SAMPLER] = lambda: sampler.trace(batch_size).lower().compile()
    cases[PARALLEL] = lambda: compile_steps(experiment, state, key)
    return cases


def stage_name(index: int) -> str:
    """Return the name of a stage's gradient."""
    return f"gradient, stage {index}"


def measure(cases: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return seconds of each case in each round; the cases take turns in changing orders."""
    rng, names = np.random.default_rng(0), list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with Progress(rounds, label="compile", unit="round", log_seconds=0.0) as progress:
        for r in range(rounds):
            for k in rng.permutation(len(names)):
                jax.clear_caches()
                start = time.perf_counter()
                cases[names[k]]()
                seconds[names[k]].append(time.perf_counter() - start)
            progress.update(r + 1)
    return seconds


def measure_starts(experiment: Experiment, rounds: int) -> dict[str, list[float]]:
    """Return processor seconds until all stages are compiled, without kept programs and with."""
    state, key = abstract_train_state(experiment), jax.random.key(experiment.train.seed)
    seconds: dict[str, list[float]] = {FIRST: [], SECOND: []}
    was_on = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", True)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            reset_cache()
            open_compilation_cache(folder)
            for name in (FIRST, SECOND):
                jax.clear_caches()
                start = time.process_time()
                compile_steps(experiment, state, key)
                seconds[name].append(time.process_time() - start)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", was_on)
    reset_cache()
    return seconds


def write_page(report: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    parts = ["# Compile time"]
    if report["seconds"]:
        parts += _programs_page(report)
    if report.get("starts"):
        parts += _starts_page(report)
    return "\n\n".join(parts)


def _starts_page(report: Mapping[str, Any]) -> list[str]:
    starts = {name: np.array(column) for name, column in report["starts"].items()}
    rows = [[name, spread(quartiles(column)._asdict())] for name, column in starts.items()]
    share = quartiles(starts[SECOND] / starts[FIRST])
    return [
        "## Starting again",
        "Processor time until the training steps of all stages are compiled, tracing included, on "
        f"{report['device']['machine']}; rounds: {len(starts[FIRST])}. "
        f"Command: `{report['command']}`",
        table(["start", "seconds"], rows),
        f"The second start takes {spread(share._asdict())} of the first's time.",
    ]


def _programs_page(report: Mapping[str, Any]) -> list[str]:
    device = report["device"]
    columns = {name: np.array(column) for name, column in report["seconds"].items()}
    rows = [[name, spread(quartiles(column)._asdict())] for name, column in columns.items()]
    stages = [column for name, column in columns.items() if name not in (SAMPLER, PARALLEL)]
    serial = np.sum(stages, axis=0)
    rows.insert(-1, ["all stages one after another", spread(quartiles(serial)._asdict())])
    gain = quartiles(serial / columns[PARALLEL])
    return [
        f"On {device['platform']}, {device['kind']}, {device['cpu_cores']} CPU cores; tracing "
        f"included, no cache. {len(serial)} rounds, medians [quartiles], seconds. "
        f"Command: `{report['command']}`",
        table(["program", "seconds"], rows),
        f"As training compiles them the stages are ready {spread(gain._asdict())} times as fast.",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.compile_time", __doc__)
    parser.add_argument("--config", default="configs/flow.py", help="config file")
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--rounds", type=int, default=5, help="compilations of each program")
    parser.add_argument("--only", choices=["starts"], help="measure two starts of a run alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
