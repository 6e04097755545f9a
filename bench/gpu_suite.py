"""Everything that only a GPU can tell, measured in one command of at most ten minutes.

    python -m bench.gpu_suite --out=runs/gpu_suite
    python -m bench.gpu_suite --out=runs/gpu_suite --parts=attention,steps

In this order, and with pyramid and vanilla, or kernels, in turn:

    attention  the bfloat16 kernel of this device against XLA in float32, forward and gradients
    steps      training steps of the video DiT: seconds, share of the peak, pyramid over vanilla
    sampling   30 network calls of AnimateDiff, miniFLUX and Wan at the paper's sizes
    pytorch    the video DiT here and in PyTorch, eager and compiled; where torch is installed
    memory     the peak of a step: measured, planned and compiled
    resume     a run that was resumed against one that was not: the bits of its losses
    resume_deterministic   the same with XLA's deterministic kernels
    training   training steps of the systems of `sampling`, with what time is left

Each part is a process of its own: what one leaves in memory, or an abort of the compiler, does not
reach the next. Each has its time, and all have --minutes together; what a part has measured by then
is kept, and so are the parts that are done, of the same size and commit: the same command goes on.
Compiled programs are kept for the next time. It needs no clips, no weights and no network.

Writes parts/PART.json, gpu_suite.json and gpu_suite.md. Exit codes: 0 all parts were measured or
cannot be here; 1 a part failed or had no time; 2 bad input.
"""

import argparse
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bench.gpu_page import write_page
from bench.report_files import command_text, facts, write_report
from experiments.command_line import command_parser, output_folder, split_names
from tpdiff_jax.checks import check_choice
from tpdiff_jax.devices.compilation_cache import open_compilation_cache
from tpdiff_jax.devices.origin import run_origin
from tpdiff_jax.files.json_files import read_json, write_json

EXIT_UNMEASURED, EXIT_BAD_INPUT = 1, 2
DONE, SKIPPED = "done", "skipped"
_LEAST_SECONDS = 15.0  # in which a process can start and measure anything
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# JAX reads either name, and refuses both together.
_MEMORY_SHARES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


class Part(NamedTuple):
    """One part of the suite.

    Attributes:
        measure: a name in `bench.gpu_parts.MEASURES`.
        seconds: that it may take at most.
        environment: variables of its process; XLA_FLAGS are added to those that are there.
    """

    measure: str
    seconds: float
    environment: Mapping[str, str] = {}


_SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # PyTorch needs memory too
PARTS: Mapping[str, Part] = {
    "attention": Part("attention", 60.0),
    "steps": Part("steps", 130.0),
    "sampling": Part("sampling", 200.0),
    "pytorch": Part("pytorch", 90.0, _SHARED),
    "memory": Part("memory", 75.0),
    "resume": Part("resume", 80.0),
    "resume_deterministic": Part("resume", 80.0, {"XLA_FLAGS": _DETERMINISTIC}),
    "training": Part("training", 120.0),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, part by part, and write after each; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    if options.part:
        return measure_part(options)
    try:
        names = split_names(options.parts) or list(PARTS)
        for name in names:
            check_choice("--parts", name, PARTS)
        if not (math.isfinite(options.minutes) and options.minutes > 0):
            raise ValueError(f"--minutes={options.minutes} must be above 0")
    except ValueError as error:
        print(f"gpu_suite: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    command, start = command_text("gpu_suite", arguments), time.monotonic()
    parts: dict[str, Any] = {}
    for name in [name for name in PARTS if name in names]:
        left = 60.0 * options.minutes - (time.monotonic() - start)
        _say(f"{name}: {_position(name, names)}, {_eta(name, names, left)}")
        parts[name] = kept_part(options, name) or run_part(options, name, left)
        _say(f"{name}: {parts[name]['status']}")
        report = make_report(command, options.size, parts)
        write_json(options.out / "gpu_suite.json", report)
    report["seconds"] = time.monotonic() - start
    write_report(options.out, "gpu_suite", report, write_page(report))
    are_fine = all(part["status"].startswith((DONE, SKIPPED)) for part in parts.values())
    return 0 if are_fine else EXIT_UNMEASURED


def make_report(command: str, size: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known so far.

    Args:
        command: of the whole suite.
        size: of what is measured.
        parts: content of their files.
    """
    told: Iterator[dict[str, Any]] = (p["facts"] for p in parts.values() if p.get("facts"))
    return {**next(told, {}), "command": command, "size": size, "parts": dict(parts)}


def kept_part(options: argparse.Namespace, name: str) -> dict[str, Any] | None:
    """Return a part that an earlier command has finished, of the same size and commit.

    Args:
        options: of the command line.
        name: of the part.
    """
    if not (path := _file(options, name)).is_file():
        return None
    found = read_json(path)
    is_same = found.get("size") == options.size and found.get("origin") == run_origin()
    return found if is_same and found.get("status") == DONE else None


def run_part(options: argparse.Namespace, name: str, left: float) -> dict[str, Any]:
    """Run a part in a process of its own and return what it has written.

    Args:
        options: of the command line.
        name: of the part.
        left: seconds of the whole suite.
    """
    path, seconds = _file(options, name), min(PARTS[name].seconds, left)
    content: dict[str, Any] = {"part": name, "size": options.size, "rows": {}}
    content["origin"] = run_origin()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**content, "status": "failed: it did not start"})
    if seconds < _LEAST_SECONDS:
        content["status"] = "out of time: nothing was measured"
        write_json(path, content)
        return content
    command = [sys.executable, "-m", "bench.gpu_suite", f"--part={name}", f"--out={options.out}"]
    command += [f"--size={options.size}", f"--seconds={seconds}"]
    if options.compilation_cache:
        command.append(f"--compilation_cache={options.compilation_cache}")
    started = time.monotonic()
    end = _wait(command, part_environment(name, os.environ), seconds)
    content = read_json(path)
    if end not in (0, None):
        content["status"] = f"failed: the process ended with {end}, rows so far are kept"
    elif end is None and content["status"] != DONE:
        content["status"] = f"out of time: ended after {seconds:.0f} s, rows so far are kept"
    content["wall_seconds"] = time.monotonic() - started
    write_json(path, content)
    return content


def part_environment(name: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a part's process: one GPU, nearly all of it, and what it asks for.

    Args:
        name: of the part.
        given: of this process; what it says stays, but for what the part needs.
    """
    out = {"CUDA_VISIBLE_DEVICES": "0", **given}
    if not any(variable in given for variable in _MEMORY_SHARES):
        out[_MEMORY_SHARES[0]] = "0.92"
    for variable, value in PARTS[name].environment.items():
        before = given.get(variable, "") if variable == "XLA_FLAGS" else ""
        out[variable] = f"{before} {value}".strip()
    return out


def _wait(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> int | None:
    """Run a command; return its exit code, or None where it was ended after so many seconds."""
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:  # out of time, or this process is being stopped
                os.killpg(process.pid, signal.SIGKILL)


def measure_part(options: argparse.Namespace) -> int:
    """Measure one part in this process, and write its file after every row.

    Args:
        options: of the command line.
    """
    from bench import gpu_parts
    from bench.gpu_rows import OutOfTime, Watch, error_line
    from bench.gpu_sizes import SIZES

    open_compilation_cache(options.compilation_cache)
    path, watch = _file(options, options.part), Watch(options.seconds)
    measure = gpu_parts.MEASURES[PARTS[options.part].measure]
    content: dict[str, Any] = {"part": options.part, "size": options.size, "origin": run_origin()}
    content |= {"status": "failed: it has not ended", "rows": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        content["facts"] = facts("gpu_suite", [f"--part={options.part}", f"--size={options.size}"])
        write_json(path, content)
        for row in measure(SIZES[options.size], watch):
            content["rows"][row["name"]] = row
            content["measured_seconds"] = watch.gone
            write_json(path, content)
            _say(f"{options.part}: {row['name']}: {row.get('error', 'measured')}, {_left(watch)}")
        failed = [row["name"] for row in content["rows"].values() if "error" in row]
        which = "failed" if len(failed) == len(content["rows"]) else f"{DONE}; failed"
        content["status"] = f"{which}: {', '.join(failed)}" if failed else DONE
    except OutOfTime as error:
        content["status"] = f"out of time: {error}, rows so far are kept"
    except gpu_parts.SkippedPart as error:
        content["status"] = f"{SKIPPED}: {error_line(error)}"
    except Exception as error:  # the next part is to be measured whatever this one met
        content["status"] = f"failed: {error_line(error)}"
    write_json(path, content)
    return 0


def _left(watch: Any) -> str:
    return f"{watch.gone:.0f} s gone, at most {max(0.0, watch.left):.0f} s left"


def _position(name: str, names: Sequence[str]) -> str:
    ordered = [part for part in PARTS if part in names]
    return f"part {ordered.index(name) + 1} of {len(ordered)}"


def _eta(name: str, names: Sequence[str], left: float) -> str:
    ordered = [part for part in PARTS if part in names]
    rest = sum(PARTS[part].seconds for part in ordered[ordered.index(name) :])
    most = min(PARTS[name].seconds, max(0.0, left))
    return f"at most {most:.0f} s, all of the rest at most {min(rest, max(0.0, left)):.0f} s"


def _say(text: str) -> None:
    print(f"gpu_suite: {text}", file=sys.stderr, flush=True)


def _file(options: argparse.Namespace, name: str) -> pathlib.Path:
    return pathlib.Path(options.out) / "parts" / f"{name}.json"


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.gpu_suite", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--size", choices=("h200", "toy"), default="h200", help="toy: for a CPU")
    parser.add_argument("--parts", default="", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--minutes", type=float, default=9.5, help="of all parts together")
    parser.add_argument("--compilation_cache", help="folder for compiled programs, or off")
    parser.add_argument("--part", choices=tuple(PARTS), default="", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
