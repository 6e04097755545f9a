"""How long does the command take to its first error, to --help and to import what a mode needs?

    python -m bench.startup --against=OLD_TREE --out=runs/startup

New processes, one in each tree in turn, so that whatever else the machine does slows both; counted
is their processor time, and the median of the rounds' ratios is the comparison. Errors and --help
run the command itself; of a mode only its imports are timed. Writes startup.json and startup.md.

Exit codes: 0 done.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.report_files import facts, write_report
from experiments.command_line import command_parser, output_folder
from experiments.pages.markdown import number, table
from tpdiff_jax.command_line import MODES

REPO = pathlib.Path(__file__).resolve().parent.parent
COMMANDS = {
    "a flag is missing": ["--config=configs/flow.py"],
    "an unknown flag": ["--config=configs/flow.py", "--workdir=W", "--nosuch=1"],
    "an unknown field": ["--config=configs/flow.py", "--workdir=W", "--config.train.num_step=5"],
    "a value of a wrong type": ["--config=configs/flow.py", "--workdir=W", "--config.eval.seed=x"],
    "a value that is refused": ["--config=configs/flow.py", "--workdir=W", "--config.optim.b1=2"],
    "doctor: no run": ["--mode=doctor", "--workdir=W"],
    "sample: no run": ["--mode=sample", "--workdir=W"],
    "--help": ["--help"],
    **{f"{mode} --help": [f"--mode={mode}", "--help"] for mode in MODES},
}
IMPORTS = {
    "train": "tpdiff_jax.train",
    "sample": "tpdiff_jax.sample",
    "evaluate": "tpdiff_jax.evaluate",
    "export": "tpdiff_jax.export",
    "prepare": "tpdiff_jax.prepare",
    "plan": "tpdiff_jax.plan",
    "advise": "tpdiff_jax.advise",
    "doctor": "tpdiff_jax.doctor",
    "replay": "tpdiff_jax.replay",
}
"""Mode -> the module that does it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    trees = {"now": REPO} | ({"before": options.against.resolve()} if options.against else {})
    with tempfile.TemporaryDirectory() as scratch:
        report = facts("startup", arguments) | {
            "rounds": options.rounds,
            "seconds": measure(command_lines(scratch), trees, options.rounds),
        }
    write_report(options.out, "startup", report, write_page(report))
    return 0


def command_lines(workdir: str) -> dict[str, list[str]]:
    """Return what Python is started with, by what is measured."""
    lines = {
        name: ["-m", "tpdiff_jax.main", *(word.replace("=W", f"={workdir}") for word in words)]
        for name, words in COMMANDS.items()
    }
    return lines | {
        f"imports of {mode}": ["-c", f"import tpdiff_jax.main, {module}"]
        for mode, module in IMPORTS.items()
    }


def measure(
    lines: Mapping[str, Sequence[str]], trees: Mapping[str, pathlib.Path], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return processor seconds and, of this tree, seconds on the clock, of each line and round.

    Args:
        lines: name -> what Python is started with.
        trees: "now" and maybe "before" -> a checkout.
        rounds: timings of each; one more warms up.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for name, line in lines.items():
        seconds: dict[str, list[float]] = {which: [] for which in (*trees, "clock")}
        for r in range(rounds + 1):
            for which in sorted(trees, reverse=bool(r % 2)):
                taken, clock = run_once(line, trees[which])
                if r:
                    seconds[which].append(taken)
                    seconds["clock"] += [clock] if which == "now" else []
        found[name] = seconds
    return found


def run_once(line: Sequence[str], tree: pathlib.Path) -> tuple[float, float]:
    """Start Python in a tree; return its processor seconds and seconds on the clock."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(tree)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, *line], cwd=tree, env=environment, capture_output=True, check=False
    )
    after, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock


def write_page(report: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    rows, is_compared = [], False
    for name, columns in report["seconds"].items():
        seconds = {which: np.array(values) for which, values in columns.items()}
        row = [name, number(np.median(seconds["now"])), number(np.median(seconds["clock"]))]
        if "before" in seconds:
            is_compared = True
            low, middle, high = np.quantile(seconds["before"] / seconds["now"], (0.25, 0.5, 0.75))
            row += [
                number(np.median(seconds["before"])),
                number(middle),
                f"{low:.2f} to {high:.2f}",
            ]
        rows.append(row)
    heads = ["what", "CPU, s", "clock, s"]
    heads += ["CPU before, s", "before / now", "quartiles"] if is_compared else []
    return "\n\n".join(
        [
            "# Start-up",
            f"Processor time of a new process on {report['device']['machine']}, and the clock's, "
            f"which others on the machine lengthen; medians of {report['rounds']} rounds, trees in "
            f"turn. Command: `{report['command']}`",
            table(heads, rows),
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.startup", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--against", type=pathlib.Path, help="checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each")
    return parser


if __name__ == "__main__":
    sys.exit(main())
