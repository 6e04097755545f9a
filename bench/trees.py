"""A training run of this tree beside the same run of another: time of a step, memory, first step.

    python -m bench.trees --against=OLD_TREE --out=runs/trees --config.train.num_steps=200

Each run is the ordinary command in a process of its own, started in one tree and in the other in
turn; nothing inside is called, so that trees of any age can be compared. Counted is the
processor time between two lines of metrics.jsonl, which does not change with what else the machine
does; on one core (`taskset -c 0`) no thread spins while it waits for another. Writes trees.json
and trees.md.

Exit codes: 0 done; 1 a run failed, its output is shown.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.report_files import facts, write_report
from experiments.command_line import command_parser, output_folder
from experiments.pages.markdown import table

REPO = pathlib.Path(__file__).resolve().parent.parent
EXIT_FAILED = 1
LABELS = {
    "step": "a step, CPU s",
    "first_step": "CPU s to the first line",
    "peak": "peak memory, GB",
}
_POLL_SECONDS = 0.05
_WARM_UP_LINES = 2


class RunFailed(Exception):
    """A run ended with an error; its output is the message."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options, overrides = _parser().parse_known_args(arguments)
    trees = {"now": REPO, "before": options.against.resolve()}
    lines = [f"--config={options.config}", *overrides]
    rounds: list[dict[str, dict[str, float]]] = []
    try:
        for r in range(options.rounds):
            one = {}
            for which in sorted(trees, reverse=bool(r % 2)):
                print(f"round {r + 1}/{options.rounds}: {which}", flush=True)
                one[which] = run_once(trees[which], lines)
            rounds.append(one)
    except RunFailed as error:
        print(f"trees: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    report = facts("trees", arguments) | {"rounds": rounds}
    write_report(options.out, "trees", report, write_page(report))
    return 0


def run_once(tree: pathlib.Path, arguments: Sequence[str]) -> dict[str, float]:
    """Train in a tree, with nothing compiled kept from before.

    Args:
        tree: checkout.
        arguments: of its command, but for the workdir.

    Returns:
        `step` and `first_step` in CPU seconds, `peak` in 10^9 bytes.

    Raises:
        RunFailed: the command ended with an error, or logged too few lines.
    """
    with tempfile.TemporaryDirectory() as scratch:
        workdir = pathlib.Path(scratch) / "run"
        environment = os.environ | {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": scratch}
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tpdiff_jax.main", f"--workdir={workdir}", *arguments],
                cwd=tree, env=environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            seen: dict[int, float] = {}
            peak = 0.0
            while process.poll() is None:
                now, peak = _cpu_seconds(process.pid), max(peak, _peak_bytes(process.pid))
                for step in _logged_steps(workdir / "metrics.jsonl"):
                    seen.setdefault(step, now)
                time.sleep(_POLL_SECONDS)
            steps = sorted(seen)
            if process.returncode or len(steps) < _WARM_UP_LINES + 2:
                output.seek(0)
                text = output.read().decode(errors="replace")
                raise RunFailed(f"{tree}: {' '.join(arguments)}\n{text[-2000:]}")
        windows = np.array([[step, seen[step]] for step in steps[_WARM_UP_LINES:]])
        per_step = np.diff(windows[:, 1]) / np.diff(windows[:, 0])
        return {
            "step": float(np.median(per_step)),
            "first_step": seen[steps[0]],
            "peak": peak / 1e9,
        }


def _logged_steps(metrics: pathlib.Path) -> list[int]:
    """Steps of the training lines written so far; those of evaluations cost time of their own."""
    if not metrics.is_file():
        return []
    whole = metrics.read_text().rpartition("\n")[0].splitlines()
    return [line["step"] for line in map(json.loads, whole) if "loss" in line]


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process that may just have ended; 0 then."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_bytes(pid: int) -> float:
    """Peak resident memory of a process that may just have ended; 0 then."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("VmHWM")]
    return 1024.0 * float(found[0]) if found else 0.0


def write_page(report: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    rows = []
    for key, label in LABELS.items():
        now, before = (
            np.array([one[which][key] for one in report["rounds"]]) for which in ("now", "before")
        )
        ratio = now / before
        rows.append(
            [
                label,
                f"{np.median(before):.3g}",
                f"{np.median(now):.3g}",
                f"{np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}]",
            ]
        )
    return "\n\n".join(
        [
            "# This tree beside an older one",
            f"Whole training runs on {report['device']['machine']}, trees in turn, "
            f"{len(report['rounds'])} rounds; medians, and the ratio's [least, largest]. A step is "
            "a step of any stage, with the optimizer, logging and the data. "
            f"Command: `{report['command']}`",
            table(["", "before", "now", "now / before"], rows),
            "",
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.trees", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--against", required=True, type=pathlib.Path, help="the other checkout")
    parser.add_argument("--config", default="configs/flow.py", help="config file, in both trees")
    parser.add_argument("--rounds", type=int, default=3, help="runs in each tree")
    return parser


if __name__ == "__main__":
    sys.exit(main())
