"""What saving a checkpoint costs a training loop: waiting, and slower steps while it is written.

    python -m bench.checkpoint --out=runs/checkpoint --megabytes=1000 --rounds=3

Each round runs the same steps twice: without a save, then from the start of a save until the
checkpoint is hashed and has its final name. Prints a table and writes checkpoint.json and
checkpoint.md. The checkpoints themselves go to --out and are removed at the end.
"""

import argparse
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.report_files import facts, write_report
from experiments.command_line import output_folder
from experiments.pages.markdown import number, table
from tpdiff_jax.run_folder.checkpoint_manifest import verify, write_checkpoint_manifest
from tpdiff_jax.run_folder.checkpoints import Checkpoints

_NUM_ARRAYS = 16
_WIDTH = 512
_MATMULS = 16
_MIN_STEPS = 20
_ROWS = (
    ("save_seconds", "the loop waits in save()"),
    ("background_seconds", "until the checkpoint has its final name"),
    ("manifest_seconds", "of which hashing and flushing to disk (one thread)"),
    ("verify_seconds", "verifying it before a restore (four threads)"),
    ("step_seconds_without", "a step without a save"),
    ("step_seconds_during", "a step during a save"),
    ("longest_step_during", "the longest step during a save"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    try:
        rounds = measure(options.out, options.megabytes * 10**6, options.rounds)
    finally:
        shutil.rmtree(options.out / "checkpoints", ignore_errors=True)
    report = {
        **facts("checkpoint", arguments),
        "state_bytes": options.megabytes * 10**6,
        "rounds": rounds,
    }
    write_report(options.out, "checkpoint", report, write_page(report))
    return 0


def measure(out: pathlib.Path, state_bytes: int, rounds: int) -> list[dict[str, float]]:
    """Return the figures of every round; the first save, which opens thread pools, is not one."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(out, keep=1)
    state = make_state(state_bytes)
    step = make_step()
    checkpoints.save(0, state, {})
    checkpoints.wait()
    figures = [measure_round(checkpoints, state, step, r + 1) for r in range(rounds)]
    checkpoints.close()
    return figures


def measure_round(
    checkpoints: Checkpoints, state: Any, step: Callable[[], None], number: int
) -> dict[str, float]:
    """Time steps without and with a save, and the parts of the save."""
    without = [_seconds(step) for _ in range(_MIN_STEPS)]
    start = time.perf_counter()
    checkpoints.save(number, state, {})
    waited = time.perf_counter() - start
    background = threading.Thread(target=checkpoints.wait)
    background.start()
    during: list[float] = []
    while background.is_alive() or not during:
        during.append(_seconds(step))
    total = time.perf_counter() - start
    folder = checkpoints.path / str(number)
    return {
        "save_seconds": waited,
        "background_seconds": total,
        "manifest_seconds": _seconds(lambda: write_checkpoint_manifest(folder, step=number)),
        "verify_seconds": _seconds(lambda: verify(folder)),
        "step_seconds_without": float(np.median(without)),
        "step_seconds_during": float(np.median(during)),
        "steps_during": len(during),
        "longest_step_during": max(during),
    }


def make_state(num_bytes: int) -> dict[str, jax.Array]:
    """Return random arrays, which no compression makes smaller."""
    size = num_bytes // (4 * _NUM_ARRAYS)
    keys = jax.random.split(jax.random.key(0), _NUM_ARRAYS)
    state = {f"array_{i}": jax.random.normal(key, (size,)) for i, key in enumerate(keys)}
    return jax.block_until_ready(state)


def make_step() -> Callable[[], None]:
    """Return a stand-in for a training step: matrix products, waited for."""
    x = jnp.eye(_WIDTH) * 0.5

    @jax.jit
    def products(x: jax.Array) -> jax.Array:
        for _ in range(_MATMULS):
            x = x @ x + 1e-3
        return x

    def step() -> None:
        jax.block_until_ready(products(x))

    step()
    return step


def write_page(report: dict[str, Any]) -> str:
    """Return the medians as Markdown."""
    device, rounds = report["device"], report["rounds"]
    rows = []
    for name, meaning in _ROWS:
        values = [figures[name] for figures in rounds]
        low, high = number(min(values)), number(max(values))
        rows.append([meaning, f"{number(float(np.median(values)))} [{low}, {high}]"])
    return "\n".join(
        [
            f"`{report['command']}`",
            "",
            f"{report['state_bytes'] / 1e6:.0f} MB of state, {device['kind']}, "
            f"{device['cpu_cores']} cores; {len(rounds)} rounds, median [lowest, highest].",
            "",
            table(["", "seconds"], rows),
            "",
        ]
    )


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the state")
    parser.add_argument("--rounds", type=int, default=3, help="saves to time")
    return parser


if __name__ == "__main__":
    sys.exit(main())
