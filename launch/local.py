r"""Train in several processes of this machine, as several machines would.

    python -m launch.local --processes=2 --devices=4 -- --config=configs/flow.py --workdir=runs/two

What follows `--` is the trainer's command line. Every process gets its number and the address of
the first one. --devices is for CPUs: so many forced host devices in each process. A SIGTERM or one
Ctrl-C goes on to all of them, and they stop after the same step; a second one ends them at once,
with code 130. When one dies, the others, which
would wait for it, are ended too: the same command resumes the run.

Exit codes: the trainer's; of several failures the first; 3 where SIGTERM ended a process, however
early; 128 + any other signal that did.
"""

import argparse
import contextlib
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from launch.job import INTERRUPTED_CODES
from launch.runner import run_program
from tpdiff_jax.checks import check_at_least
from tpdiff_jax.command_line import ExitCode, parse

_TRAINER = "tpdiff_jax.main"
_POLL_SECONDS = 0.2
# Bad input ends every process by itself; what still runs then waits for one that is gone.
_GRACE_SECONDS = 10.0


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def commands(num_processes: int, port: int, trainer_args: Sequence[str]) -> list[list[str]]:
    """Return the command line of every process."""
    return [
        [
            *(sys.executable, "-m", _TRAINER, *trainer_args),
            f"--coordinator_address=localhost:{port}",
            f"--num_processes={num_processes}",
            f"--process_id={process_id}",
        ]
        for process_id in range(num_processes)
    ]


def extra_environment(num_devices: int | None) -> dict[str, str]:
    """Return the variables that give a process so many CPU devices; none when not asked to."""
    if num_devices is None:
        return {}
    forced = f"--xla_force_host_platform_device_count={num_devices}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {forced}".strip()  # of two, XLA takes the last
    # jax's own number goes before XLA's, where the caller has set one.
    own = {"JAX_NUM_CPU_DEVICES": str(num_devices)}
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **own}


def run_all(lines: Sequence[Sequence[str]], extra: Mapping[str, str]) -> int:
    """Run the commands side by side; return 0, or the exit code of the first that failed."""
    processes = [subprocess.Popen(line, env=os.environ | extra) for line in lines]
    try:
        with _forwarded_signals(processes):
            return _wait(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _wait(processes: Sequence[subprocess.Popen]) -> int:
    first_failure, deadline = 0, float("inf")
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        if not first_failure and any(codes):
            first_failure = next(code for code in codes if code)
            deadline = time.monotonic() + _GRACE_SECONDS
        time.sleep(_POLL_SECONDS)
    code = first_failure or next((p.returncode for p in processes if p.returncode), 0)
    if code in INTERRUPTED_CODES:
        return ExitCode.PREEMPTED
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _forwarded_signals(processes: Sequence[subprocess.Popen]) -> Iterator[None]:
    def forward(number: int, *_: object) -> None:
        if number == signal.SIGINT:  # the second one ends all
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for process in processes:
            if process.poll() is None:
                process.terminate()

    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def launch(options: argparse.Namespace) -> int:
    """Run, or print, what the options ask for.

    Raises:
        ValueError: for a number below 1, or a command line that the trainer would refuse.
    """
    for name in ("processes", "devices"):
        value = getattr(options, name)
        if value is not None:
            check_at_least(f"--{name}", value, 1)
    if not options.trainer_args:
        raise ValueError("the trainer's arguments are missing: put them after --")
    lines = commands(options.processes, free_port(), options.trainer_args)
    _check_trainer_args(lines[0][lines[0].index(_TRAINER) + 1 :])
    extra = extra_environment(options.devices)
    if options.dry_run:
        shown = [f"{name}={shlex.quote(value)}" for name, value in extra.items()]
        for line in lines:
            print(" ".join(["$", *shown, shlex.join(line), "&"]))
        return 0
    return run_all(lines, extra)


def _check_trainer_args(arguments: Sequence[str]) -> None:
    """Raise ValueError for what every process would refuse, before any is started.

    A config file that is not here is the trainer's to refuse: a dry run may be for elsewhere.
    """
    configs = [word.partition("=")[2] for word in arguments if word.startswith("--config=")]
    if all(pathlib.Path(config).is_file() for config in configs):
        parse(["tpdiff_jax", *arguments])


def main(argv: Sequence[str]) -> int:
    """Parse the command line and launch; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.local",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--processes", type=int, default=2, help="processes to start (2)")
    parser.add_argument("--devices", type=int, help="CPU devices of each process")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    parser.add_argument("trainer_args", nargs="*", help="the trainer's command line, after --")
    options = parser.parse_args(argv)
    return run_program("launch.local", lambda: launch(options), "all processes were ended at once")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
