"""Memory that planning foresees, against what a training step then takes on this machine.

    python -m bench.memory --config=configs/flow.py --out=runs/memory

For each stage: the peak of `--mode=plan --topology=local`, that of the gradient as training
compiles it with the state beside it, and the peak measured while it runs: the device's own count on
a GPU or TPU, on CPUs, which keep none, the growth of this process. With several host devices
(XLA_FLAGS=--xla_force_host_platform_device_count=8, as in `--topology=cpu:8`) the process holds
all of them, and their planned peaks are added. A step begins once the last one's memory is given
back: on CPUs a program may begin before the runtime has let go of the last one's arrays, and the C
library keeps what was freed, so that training takes up to a gradient more.
Writes memory.json and memory.md.
Exit codes: 0 done; 2 bad input.
"""

import argparse
import itertools
import pathlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from bench.report_files import facts, write_report
from experiments.command_line import command_parser, output_folder
from experiments.grid.overrides import parse_overrides, read_config
from experiments.pages.markdown import number, table
from tpdiff_jax.devices.host_memory import release_free_memory
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.planning.program_cost import memory_use
from tpdiff_jax.report.formats import stage_shape
from tpdiff_jax.training.batches import iterate_batches
from tpdiff_jax.training.initial_state import abstract_train_state, make_state
from tpdiff_jax.training.step_cost import beside_gradient, step_cost, update_cost
from tpdiff_jax.training.step_programs import compile_step

EXIT_BAD_INPUT = 2
AIM = 0.10
_PATIENCE = 10.0  # seconds
_STATUS = pathlib.Path("/proc/self/status")
_RESET = pathlib.Path("/proc/self/clear_refs")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options, rest = _parser().parse_known_args(arguments)
    try:
        experiment = build_experiment(read_config(options.config, parse_overrides(rest)))
    except ValueError as error:
        print(f"memory: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    stages = range(experiment.pyramid.num_stages)
    report = {
        **facts("memory", arguments),
        "config": experiment.config.to_dict(),
        "stages": [measure_stage(experiment, i) for i in stages],
    }
    write_report(options.out, "memory", report, write_page(report))
    return 0


def measure_stage(
    experiment: Experiment, stage_index: int, batch: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return planned, compiled and measured bytes of one stage's step, all devices together.

    Args:
        experiment: what is trained.
        stage_index: stage, 0 is the coarsest.
        batch: what the step trains on; None takes that of the run's first step of this stage.
    """
    key = jax.random.key(experiment.train.seed)
    abstract, devices = abstract_train_state(experiment), jax.local_devices()
    program = experiment.programs[stage_index]
    planned = step_cost(program, update_cost(experiment)).memory
    step = compile_step(program, abstract, key)
    platform = devices[0].platform
    alone = memory_use(step.gradient.memory_analysis(), platform)
    state = make_state(experiment, key)
    if batch is None:
        steps = (i for i in itertools.count() if experiment.program_of_step(i) == stage_index)
        batch = next(iter(iterate_batches(experiment, next(steps))))
    meter = PeakMeter(jax.block_until_ready((state, batch)))
    for _ in range(2):  # the first touches memory for the first time
        state, metrics = step(state, batch, key)
        jax.block_until_ready((state, metrics))
        meter.let_go()
    return {
        "stage": stage_index,
        "shape": list(experiment.pyramid.stages[stage_index].shape),
        "planned": planned.peak * len(devices),
        "planned_state": planned.argument * len(devices),
        "compiled": alone.beside(beside_gradient(abstract)).peak * len(devices),
        "measured": meter.peak_bytes(),
    }


class PeakMeter:
    """The peak of arrays in memory since its creation: of all devices, or of this process."""

    def __init__(self, present: Any) -> None:
        """Give back what compilation has freed, and start from the arrays of a tree."""
        self._is_counted = jax.local_devices()[0].memory_stats() is not None
        leaves = jax.tree.leaves(present)
        self._held = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
        release_free_memory()
        if not self._is_counted:
            _RESET.write_text("5")  # sets the highest resident size to the present one
        self._start = 0.0 if self._is_counted else _resident_bytes("VmRSS") - self._held

    def let_go(self) -> None:
        """Wait until this process is back at the arrays it started from, at most some seconds.

        An array is ready before the runtime has let go of what its program read.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self._is_counted and time.monotonic() < deadline:
            release_free_memory()
            if _resident_bytes("VmRSS") - self._start < 1.02 * self._held:
                return
            time.sleep(0.05)

    def peak_bytes(self) -> float:
        """Return the peak; of devices since they were started, which know no other."""
        if self._is_counted:
            stats = [device.memory_stats() for device in jax.local_devices()]
            return float(sum(entry["peak_bytes_in_use"] for entry in stats))
        return _resident_bytes("VmHWM") - self._start


def _resident_bytes(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{_STATUS} has no {name}: this needs Linux")
    return 1024.0 * float(found.group(1))


def write_page(report: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    device = report["device"]
    rows = [
        [
            str(row["stage"]),
            stage_shape(row),
            *(number(row[name] / 2**20) for name in ("planned_state", "planned", "compiled")),
            number(row["measured"] / 2**20),
            f"{row['measured'] / row['planned'] - 1:+.1%}",
        ]
        for row in report["stages"]
    ]
    header = ["stage", "frames x height x width", "state and batch", "planned peak"]
    header += ["compiled gradient", "measured", ""]
    return "\n\n".join(
        [
            "# Memory, planned and real",
            f"MiB on {device['platform']}, {device['kind']}, {device['num_devices']} device(s) "
            f"together. Command: `{report['command']}`",
            table(header, rows),
            f"Aim: measured within {AIM:.0%} of planned.",
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.memory", __doc__)
    parser.add_argument("--config", default="configs/flow.py", help="config file")
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
