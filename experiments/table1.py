"""The paper's Table 1: seconds of sampling, vanilla and pyramid, for all systems in one run.

    python -m experiments.table1 --out=runs/table1
    python -m experiments.table1 --out=runs/table1 --systems=animatediff,wan --rounds=3

Every system is its config's network at its published size with fresh parameters, 30 network calls
with guidance, without text encoder and autoencoder; needs neither clips nor weights. The ceiling is
what the FLOP model allows. `--config.GROUP.FIELD=VALUE` goes to all configs, and
`--frame_shapes=FxHxWxC,...` replaces the shapes of the systems' latents, in their order.

Each system in turn is measured as by `bench.latency`, both twins interleaved, ratios in a round.
Those that are done are kept: the same command goes on. Writes SYSTEM.json, table1.json, table1.md.
Exit codes: 0 done; 2 bad input.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.cost_cases import build_twins
from bench.latency import measure
from bench.report_files import facts, write_report
from experiments.command_line import command_parser, output_folder, split_names
from experiments.grid.overrides import parse_overrides, read_config
from experiments.measured_facts import hash_of_facts, shown_hash
from experiments.pages.paper_tables import latency_rows
from experiments.sampling import read_point
from tpdiff_jax.checks import check_choice
from tpdiff_jax.devices.facts import device_facts, package_versions
from tpdiff_jax.files.json_files import write_json

EXIT_BAD_INPUT = 2


class TimedSystem(NamedTuple):
    """A config and the shape of what its network sees: frames, height, width, channels."""

    config: str
    frame_shape: tuple[int, ...]


SYSTEMS: Mapping[str, TimedSystem] = {
    "miniflux": TimedSystem("configs/miniflux_vid.py", (16, 48, 80, 16)),
    "animatediff": TimedSystem("configs/animatediff.py", (16, 32, 32, 4)),
    "wan": TimedSystem("configs/wan_t2v.py", (21, 60, 104, 16)),
    "open_sora_v1": TimedSystem("configs/open_sora_v1.py", (16, 32, 32, 4)),
    "open_sora_v1_2": TimedSystem("configs/open_sora_v1_2.py", (20, 30, 54, 4)),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Time what is missing, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options, rest = _parser().parse_known_args(arguments)
    try:
        systems = select_systems(split_names(options.systems), split_names(options.frame_shapes))
        overrides = {**parse_overrides(rest), "sample.batch_size": str(options.videos)}
        rows = [time_system(name, system, overrides, options) for name, system in systems.items()]
    except ValueError as error:
        print(f"table1: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    report = facts("table1", arguments, "experiments") | {"rows": rows}
    write_report(options.out, "table1", report, write_page(report))
    return 0


def select_systems(names: Sequence[str], shapes: Sequence[str]) -> dict[str, TimedSystem]:
    """Return the systems to time.

    Args:
        names: of `SYSTEMS`; all for none.
        shapes: of their latents, as FxHxWxC; the published ones for none.

    Raises:
        ValueError: for an unknown name or a shape that is none.
    """
    for name in names:
        check_choice("--systems", name, SYSTEMS)
    systems = {name: SYSTEMS[name] for name in names or SYSTEMS}
    if not shapes:
        return systems
    if len(shapes) != len(systems):
        raise ValueError(f"--frame_shapes has {len(shapes)} shapes for {len(systems)} systems")
    return {
        name: system._replace(frame_shape=_shape(text))
        for (name, system), text in zip(systems.items(), shapes, strict=True)
    }


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split("x")
    if len(parts) != 4 or not all(part.isdigit() and int(part) for part in parts):
        raise ValueError(f"--frame_shapes: {text!r} must be like 16x32x32x4")
    return tuple(map(int, parts))


def time_system(
    name: str, system: TimedSystem, overrides: Mapping[str, str], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the row of a system; one that is on the disk and of the same setting is read.

    Args:
        name: of the system.
        system: its config and shape.
        overrides: fields of the config.
        options: of the command line.

    Raises:
        ValueError: when the config cannot be built.
    """
    device = device_facts()
    setting = {
        "config": system.config, "frame_shape": list(system.frame_shape), "device": device,
        "overrides": dict(overrides), "videos": options.videos, "rounds": options.rounds,
        "config_sha256": hash_of_facts(read_config(system.config, overrides).to_dict()),
        "versions": package_versions(),
    }  # fmt: skip
    path = options.out / f"{name}.json"
    if kept := read_point(path, {"setting": setting}):
        return kept
    twins = build_twins(system.config, overrides, system.frame_shape)
    timed = measure({name: twins}, options.videos, options.rounds)
    (row,) = timed["rows"]
    row |= {"system": name, "setting": setting, "facts_sha256": hash_of_facts(setting)}
    row["seconds"] = timed["seconds"]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, row)
    return row


def write_page(report: Mapping[str, Any]) -> str:
    """Return the table and where it was measured, as Markdown."""
    lines = []
    for row in report["rows"]:
        setting, device = row["setting"], row["setting"]["device"]
        shape = "x".join(map(str, setting["frame_shape"]))
        lines.append(
            f"- {row['system']}: `{setting['config']}`, latents {shape}, {setting['videos']} "
            f"video(s) at once, {setting['rounds']} rounds, on {device['platform']}, "
            f"{device['kind']}, {device['num_devices']} device(s), {shown_hash(setting)}"
        )
    note = (
        "Medians [quartiles] over rounds, compilation, text encoder and autoencoder excluded; the "
        f"ratio is vanilla's time over the pyramid's. Command: `{report['command']}`"
    )
    parts = ["# Latency of sampling (Table 1)", note, latency_rows(report["rows"])]
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("experiments.table1", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--systems", default="", help=f"of {', '.join(SYSTEMS)}; all by default")
    parser.add_argument("--frame_shapes", default="", help="shapes of the latents, FxHxWxC")
    parser.add_argument("--videos", type=int, default=1, help="videos at once")
    parser.add_argument("--rounds", type=int, default=7, help="timings of each sampler")
    return parser


if __name__ == "__main__":
    sys.exit(main())
