"""The paper's Table 3: FVD and CLIPSIM of pyramids trained with and without alignment.

    python -m experiments.table3 --systems=systems.json --out=runs/table3 --num_videos=2048 \
      --fvd_weights=i3d.safetensors --clip_folder=clip-vit-base-patch32 --real_clips=MSR_VTT_CLIPS

`systems.json` names the runs (`experiments.systems`); those called as in the paper stand beside
its figures: animatediff_tpdiff and miniflux_tpdiff, trained with `alignment.mode` as it stands,
and animatediff_unaligned and miniflux_unaligned, with `alignment.mode=none`. Every system is
measured as by `--mode=evaluate`, with equally many videos of one seed. What is measured is kept:
the same command goes on.

Writes SYSTEM/evaluation_STEP.json, table3.json and table3.md. Exit codes: 0 done; 2 bad input.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from bench.report_files import facts, write_report
from experiments.command_line import command_parser, output_folder, split_names
from experiments.measured_facts import facts_of_videos, hash_of_facts, shown_hash
from experiments.pages.paper_tables import ALIGNMENT, beside_published
from experiments.sampling import read_point
from experiments.systems import System, read_systems
from tpdiff_jax.clips.record_manifest import read_clip_manifest
from tpdiff_jax.encoders import hash_folders
from tpdiff_jax.evaluate import evaluate_run
from tpdiff_jax.files.durable import sha256_of_file
from tpdiff_jax.files.json_files import read_json, write_json
from tpdiff_jax.generation.from_checkpoint import GenerateFlags

EXIT_BAD_INPUT = 2
COLUMNS = ("fvd", "clipsim", "statistics")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then write the table; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    flags = GenerateFlags(
        num_videos=options.num_videos,
        seed=options.seed,
        fvd_weights=options.fvd_weights,
        clip_folder=options.clip_folder,
        real_clips=options.real_clips,
    )
    try:
        systems = read_systems(options.systems, split_names(options.only))
        rows = {system.name: evaluate_system(system, flags, options.out) for system in systems}
    except ValueError as error:
        print(f"table3: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    report = facts("table3", arguments, "experiments")
    report |= {"systems": rows, "flags": flags._asdict()}
    write_report(options.out, "table3", report, write_page(report))
    return 0


def evaluate_system(system: System, flags: GenerateFlags, out: pathlib.Path) -> dict[str, Any]:
    """Return a system's figures; those on the disk, of the same setting, are read.

    Args:
        system: a run.
        flags: how many videos, of which seed, measured with what.
        out: output folder.

    Raises:
        ValueError: when the system cannot be opened, or there is nothing to compare with.
    """
    run = system.open(flags, is_measured=True)
    setting = facts_of_videos(system, run) | {
        "alignment": run.experiment.task.alignment.mode,
        "clips": dict(run.experiment.dataset.fingerprint()),
        "num_videos": flags.num_videos,
        "seed": flags.seed,
        "measured_with": hashes_of_measures(flags),
    }
    path = out / f"{system.name}.json"
    if kept := read_point(path, {"setting": setting}):
        return kept
    evaluation = read_json(evaluate_run(run, out / system.name))
    row = {"setting": setting, "facts_sha256": hash_of_facts(setting)}
    row |= {name: evaluation.get(name) for name in ("metrics", "references", "measurement")}
    write_json(path, row)
    return row


def hashes_of_measures(flags: GenerateFlags) -> dict[str, str]:
    """Return the SHA-256 of what the command line names to measure with, by the flag's name.

    Args:
        flags: of generation.
    """
    found = {}
    if flags.fvd_weights:
        found["fvd_weights"] = sha256_of_file(pathlib.Path(flags.fvd_weights))
    if flags.clip_folder:
        found["clip_folder"] = hash_folders(pathlib.Path(flags.clip_folder))
    if flags.real_clips:
        found["real_clips"] = read_clip_manifest(pathlib.Path(flags.real_clips)).fingerprint
    return found


def write_page(report: dict[str, Any]) -> str:
    """Return the table, what is beside it and how it was measured, as Markdown."""
    systems = report["systems"]
    measured = {name: row["metrics"] for name, row in systems.items()}
    for name, row in systems.items():
        if "ceiling" in (row["references"] or {}):
            measured[f"{name}: real clips"] = row["references"]["ceiling"]
    columns = [name for name in COLUMNS if any(name in row for row in measured.values())]
    lines = [
        f"- {name}: `{row['setting']['workdir']}`, step {row['setting']['checkpoint_step']}, "
        f"alignment {row['setting']['alignment']}, {shown_hash(row['setting'])}"
        for name, row in systems.items()
    ]
    flags = report["flags"]
    note = (
        f"{flags['num_videos']} videos a system, seed {flags['seed']}. Figures are comparable with "
        "the paper's only for the same clips, number of videos and weights of the measuring "
        f"networks. Command: `{report['command']}`"
    )
    parts = ["# Alignment on and off (Table 3)", note]
    parts += [beside_published(columns, measured, ALIGNMENT), "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("experiments.table3", __doc__)
    parser.add_argument("--systems", required=True, type=pathlib.Path, help="JSON file of systems")
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--only", default="", help="these systems of the file")
    parser.add_argument("--num_videos", type=int, default=2048, help="videos of each system")
    parser.add_argument("--seed", type=int, default=0, help="of all videos")
    parser.add_argument("--fvd_weights", help="I3D's weights")
    parser.add_argument("--clip_folder", help="a CLIP model")
    parser.add_argument("--real_clips", help="clips to compare with, default the runs' held-out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
