r"""Train once undisturbed and once under kills, and compare every bit.

    python -m experiments.soak --config=configs/flow.py --out=runs/soak --kills=40 \
        --mean_seconds=60 --config.train.num_steps=2000

The disturbed run is the same command, started again after every kill, as a user or a scheduler
does. Kills come in turn: at any time, while a checkpoint is written, while it is hashed, and as
SIGTERM (experiments/soak_runs.py). Every step is logged, so that every loss is compared. The same
command goes on with an unfinished soak. `--reference=WORKDIR` takes a finished undisturbed run of
the same config instead of training one.

Writes into --out: undisturbed/ and disturbed/ (ordinary run folders, their output in log.txt),
lives.jsonl and undisturbed_life.json (one line a process), soak.json, soak.md.

Exit codes: 0 equal; 1 different, or training ended with an unexpected code; 2 bad input.
"""

import argparse
import json
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.command_line import command_parser, output_folder, split_names
from experiments.grid.overrides import overrides_to_flags, parse_overrides, read_config
from experiments.pages.soak_page import write_page
from experiments.soak_runs import KINDS, LOG_FILE, Kill, Life, live, memory_growth
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_folder.checkpoint_manifest import verify
from tpdiff_jax.run_folder.results_file import is_complete
from tpdiff_jax.run_log.json_lines import METRICS_FILE, read_metrics

EXIT_DIFFERENT, EXIT_BAD_INPUT = 1, 2
LIVES_FILE, UNDISTURBED_FILE = "lives.jsonl", "undisturbed_life.json"
_CLOCK_WORDS = ("seconds", "per_second", "peak_share")
_PREEMPTED = 3


class TrainingFailed(Exception):
    """A training process ended with a code that no kill explains."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train, kill, compare, write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options, rest = _parser().parse_known_args(arguments)
    try:
        jax.config.update("jax_platforms", "cpu")  # accelerators are for the training processes
        kinds = check_kinds(options.kinds)
        overrides = {**parse_overrides(rest), "train.log_every_steps": "1"}
        read_config(options.config, overrides)  # before anything is written
        reference = options.reference or options.out / "undisturbed"
        if options.reference and not (reference / "results.json").is_file():
            raise ValueError(f"--reference={reference} holds no finished run")
        run_undisturbed(options, overrides, reference)
        lives = run_disturbed(options, overrides, kinds)
        results = json.loads((options.out / "disturbed" / "results.json").read_text())
        report = {
            "command": shlex.join(["python", "-m", "experiments.soak", *arguments]),
            **{name: results[name] for name in ("device", "versions")},
            "undisturbed_memory": longest_growth(read_lives(options.out / UNDISTURBED_FILE)),
            "disturbed_memory": longest_growth(lives),
            "lives": [life._replace(memory=[])._asdict() for life in lives],
            **compare_runs(reference, options.out / "disturbed"),
        }
    except TrainingFailed as error:
        print(f"soak: {error}", file=sys.stderr)
        return EXIT_DIFFERENT
    except ValueError as error:
        print(f"soak: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    write_json(options.out / "soak.json", report)
    page = write_page(report)
    write_durably(options.out / "soak.md", page)
    print(page)
    return 0 if report["is_equal"] else EXIT_DIFFERENT


def check_kinds(text: str) -> list[str]:
    """Return the kinds of kill, in turn.

    Raises:
        ValueError: for an unknown one.
    """
    kinds = split_names(text)
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"--kinds={text} must be among {', '.join(KINDS)}")
    return kinds


def train_command(config: str, workdir: pathlib.Path, overrides: Mapping[str, str]) -> list[str]:
    """Return the command that a user would type."""
    command = [sys.executable, "-m", "tpdiff_jax.main", f"--config={config}"]
    return [*command, f"--workdir={workdir}", *overrides_to_flags(overrides)]


def run_undisturbed(
    options: argparse.Namespace, overrides: Mapping[str, str], workdir: pathlib.Path
) -> None:
    """Train without a kill, unless that was done before."""
    if (workdir / "results.json").is_file():
        return
    life = live(train_command(options.config, workdir, overrides), workdir, None)
    if life.code != 0:
        raise TrainingFailed(f"the undisturbed run ended with {life.code}: {workdir / LOG_FILE}")
    append_life(options.out / UNDISTURBED_FILE, life)


def run_disturbed(
    options: argparse.Namespace, overrides: Mapping[str, str], kinds: Sequence[str]
) -> list[Life]:
    """Train under kills until the run is complete; the lives so far are kept in a file."""
    workdir, path = options.out / "disturbed", options.out / LIVES_FILE
    command = train_command(options.config, workdir, overrides)
    lives = read_lives(path)
    while not lives or lives[-1].code != 0:
        number = sum(life.kind is not None for life in lives)
        kill = plan_kill(options, kinds, number) if number < options.kills else None
        life = live(command, workdir, kill)
        lives.append(life)
        append_life(path, life)
        print(f"life {len(lives)}: {describe(life)}", file=sys.stderr)
        if life.code not in (0, _PREEMPTED) and life.kind is None:
            raise TrainingFailed(f"training ended with {life.code}: {workdir / LOG_FILE}")
    return lives


def plan_kill(options: argparse.Namespace, kinds: Sequence[str], number: int) -> Kill:
    """Return kill `number`, a function of the seed alone."""
    random = np.random.default_rng((options.seed, number))
    return Kill(kinds[number % len(kinds)], random.uniform(0, 2 * options.mean_seconds))


def append_life(path: pathlib.Path, life: Life) -> None:
    """Add one life to a file of them."""
    with open(path, "a") as file:
        file.write(json.dumps(life._asdict()) + "\n")


def read_lives(path: pathlib.Path) -> list[Life]:
    """Read the lives of a soak that was interrupted."""
    if not path.is_file():
        return []
    return [Life(**json.loads(line)) for line in path.read_text().splitlines()]


def describe(life: Life) -> str:
    """Return one life as a line."""
    how = f"kill '{life.kind}'" if life.kind else "no kill"
    during = f", during {', '.join(life.unfinished)}" if life.unfinished else ""
    return f"{how}, code {life.code}, {life.seconds:.1f} s, step {life.newest_step}{during}"


def longest_growth(lives: Sequence[Life]) -> dict[str, Any] | None:
    """Return the memory growth of the life with the most time to grow; None without lives."""
    return memory_growth(max(lives, key=lambda life: life.seconds)) if lives else None


def compare_runs(reference: pathlib.Path, disturbed: pathlib.Path) -> dict[str, Any]:
    """Compare the final states byte for byte and the logged lines but for times.

    Returns:
        step, num_arrays, num_bytes, different_arrays; compared_lines (None when the reference did
        not log every step), different_lines; is_equal.

    Raises:
        ValueError: when the two are runs of different configs or lengths.
    """
    run_config.check_same_run(run_config.load_config(reference), run_config.load_config(disturbed))
    first, second = final_arrays(reference), final_arrays(disturbed)
    steps = [run_config.load_config(workdir).train.num_steps for workdir in (reference, disturbed)]
    if steps[0] != steps[1]:
        raise ValueError(f"{reference} has {steps[0]} steps, {disturbed} {steps[1]}")
    different = [
        name
        for name in sorted(first.keys() | second.keys())
        if name not in first
        or name not in second
        or first[name].tobytes() != second[name].tobytes()
    ]
    report: dict[str, Any] = {
        "step": steps[0],
        "num_arrays": len(first),
        "num_bytes": sum(array.nbytes for array in first.values()),
        "different_arrays": different,
        "compared_lines": None,
        "different_lines": [],
    }
    lines, others = (train_lines(workdir) for workdir in (reference, disturbed))
    if run_config.load_config(reference).train.log_every_steps == 1:
        report["compared_lines"] = len(lines)
        steps = sorted(lines.keys() | others.keys())
        report["different_lines"] = [s for s in steps if lines.get(s) != others.get(s)]
    report["is_equal"] = not different and not report["different_lines"]
    return report


def final_arrays(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Return every array of the final checkpoint, by path, whatever devices it was trained on.

    Raises:
        ValueError: when the run is not finished or the checkpoint not intact.
    """
    num_steps = run_config.load_config(workdir).train.num_steps
    if not is_complete(workdir, num_steps):
        raise ValueError(f"{workdir} holds no finished run")
    folder = (workdir / "checkpoints" / str(num_steps)).resolve()
    verify(folder)
    reader = ocp.PyTreeCheckpointer()
    tree = reader.metadata(folder / "state").item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    leaves = jax.tree.leaves_with_path(reader.restore(folder / "state", restore_args=as_numpy))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def train_lines(workdir: pathlib.Path) -> dict[int, dict[str, Any]]:
    """Return step -> what was logged of it, without what the clock or the kills decide."""
    return {
        line["step"]: {
            name: value
            for name, value in line.items()
            if not any(word in name for word in (*_CLOCK_WORDS, "checkpoint"))
        }
        for line in read_metrics(workdir / METRICS_FILE)
        if "loss" in line
    }


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("experiments.soak", __doc__)
    parser.add_argument("--config", default="configs/flow.py", help="config file")
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--reference", type=pathlib.Path, help="a finished undisturbed run")
    parser.add_argument("--kills", type=int, default=20, help="kills in all")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of kill, taken in turn")
    parser.add_argument(
        "--mean_seconds", type=float, default=30.0, help="mean wait before a kill at a random time"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the waits")
    return parser


if __name__ == "__main__":
    sys.exit(main())
