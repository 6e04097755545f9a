"""The paper's Table 2: videos of VBench's prompts by every system, and the table of its scores.

    python -m experiments.table2 --systems=systems.json --prompts=vbench \
      --info=VBench_full_info.json --out=runs/table2
    python -m experiments.table2 --systems=systems.json --prompts=prompts.txt --out=runs/table2

`systems.json` names runs and published weights (`experiments.systems`); rows called as in the paper
(modelscope, open_sora, animatediff, animatediff_tpdiff, miniflux, miniflux_tpdiff) stand beside its
figures. Of a file with one prompt a line VBench scores the dimensions that need no prompt list.

Video j of a system depends on (seed, j, prompt) alone, and those on the disk are kept: the same
command goes on, and `--part=2/4` makes the second of four shares, so that hosts that see the same
folder share the work. VBench needs an environment of its own: its command is printed and written,
and its results are read from OUT/SYSTEM_scores/ when the command is given again.

Writes OUT/SYSTEM/PROMPT-0.mp4 to PROMPT-4.mp4, SYSTEM.json, table2.json and table2.md.
Exit codes: 0 done; 2 bad input; 6 a file could not be written.
"""

import argparse
import hashlib
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.report_files import facts, write_report
from experiments.command_line import command_parser, output_folder, split_names
from experiments.measured_facts import facts_of_videos, hash_of_facts, shown_hash
from experiments.pages.paper_tables import SCORES, beside_published
from experiments.systems import System, read_systems
from tpdiff_jax.checks import naming
from tpdiff_jax.command_line.exit_codes import ExitCode
from tpdiff_jax.evals import vbench
from tpdiff_jax.files.durable import WriteError
from tpdiff_jax.files.json_files import read_json, write_json
from tpdiff_jax.files.media import to_uint8, write_mp4
from tpdiff_jax.generation.from_checkpoint import GenerateFlags, OpenedRun
from tpdiff_jax.generation.prompts import SampleFlags, read_prompts
from tpdiff_jax.generation.requested_videos import RequestedVideos, request_videos
from tpdiff_jax.generation.sample_files import Decode, SampleNames, check_names, open_decoder
from tpdiff_jax.run_log.progress import Progress


class Work(NamedTuple):
    """What every system makes.

    Attributes:
        prompts: each once.
        is_vbench: whether they are VBench's own list.
        dimensions: to score.
        videos_per_prompt: of each system.
        seed: of all videos.
        part: this command's share of the batches, from 0, of `num_parts`.
        num_parts: shares in all.
        out: output folder.
    """

    prompts: list[str]
    is_vbench: bool
    dimensions: tuple[str, ...]
    videos_per_prompt: int
    seed: int
    part: int
    num_parts: int
    out: pathlib.Path


def main(argv: Sequence[str] | None = None) -> int:
    """Make the videos that are missing, then the table; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    try:
        work = read_work(options)
        systems = read_systems(options.systems, split_names(options.only))
        rows = {system.name: make_row(system, work) for system in systems}
    except ValueError as error:
        print(f"table2: error: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT
    except WriteError as error:
        print(f"table2: error: {error}", file=sys.stderr)
        return ExitCode.SAVE_FAILED
    report = facts("table2", arguments, "experiments")
    report |= {"seed": work.seed, "prompts": len(work.prompts), "systems": rows}
    write_report(work.out, "table2", report, write_page(report))
    return 0


def read_work(options: argparse.Namespace) -> Work:
    """Return what the command line asks for.

    Raises:
        ValueError: naming the option that does not fit.
    """
    is_vbench = options.prompts == "vbench"
    if is_vbench and options.info is None:
        raise ValueError("--prompts=vbench needs --info=VBench_full_info.json, of VBench's package")
    dimensions = tuple(split_names(options.dimensions))
    vbench.check_dimensions(dimensions)
    if is_vbench:
        prompts = [p.text for p in vbench.read_vbench_prompts(options.info, dimensions)]
    else:
        prompts = list(dict.fromkeys(read_prompts(options.prompts)))
        dimensions = dimensions or vbench.WITHOUT_PROMPTS
        if unknown := [name for name in dimensions if name not in vbench.WITHOUT_PROMPTS]:
            raise ValueError(
                f"--dimensions: {', '.join(unknown)} needs VBench's own prompts; allowed: "
                f"{', '.join(vbench.WITHOUT_PROMPTS)}"
            )
    parts = re.fullmatch(r"([0-9]+)/([0-9]+)", options.part)
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
        raise ValueError(f"--part={options.part} must be like 2/4, from 1/4 to 4/4")
    if options.videos_per_prompt < 1:
        raise ValueError(f"--videos_per_prompt={options.videos_per_prompt} must be 1 or more")
    numbers = options.videos_per_prompt, options.seed, int(parts[1]) - 1, int(parts[2])
    return Work(prompts, is_vbench, dimensions, *numbers, options.out)


def make_row(system: System, work: Work) -> dict[str, Any]:
    """Make a system's share of videos and read its scores.

    Args:
        system: a run or published weights.
        work: what to make.

    Returns:
        Facts of the videos and their hash; the command that scores them; scores as VBench gives
        them, {} before.

    Raises:
        ValueError: when the system cannot be opened, or its folder holds other videos.
        WriteError: when the disk is full or broken.
    """
    run = system.open(GenerateFlags(seed=work.seed))
    folder, scores = work.out / system.name, work.out / f"{system.name}_scores"
    with naming(system.name):
        paths = video_paths(work, folder)
    facts, facts_path = facts_of(system, run, work), work.out / f"{system.name}.json"
    check_facts(facts_path, facts)
    batches = own_batches(paths, run.experiment.sample.batch_size, work)
    with naming(system.name):
        asked = request(system, run, work, folder) if batches else None
    work.out.mkdir(parents=True, exist_ok=True)
    write_json(facts_path, facts)
    if asked is not None:  # an encoder of prompts is not opened for the table alone
        make_videos(system.name, *asked, batches, run.experiment.dataset.fps)
    missing = sum(not path.is_file() for path in paths)
    command = vbench.scoring_command(
        folder.absolute(), work.dimensions, scores.absolute(), is_own_prompts=not work.is_vbench
    )
    found = sorted(scores.glob("*_eval_results.json"))
    figures = vbench.read_scores(found) if found else {}
    return {
        "setting": facts,
        "facts_sha256": hash_of_facts(facts),
        "missing_videos": missing,
        "command": command,
        "scores": figures,
    }


def facts_of(system: System, run: OpenedRun, work: Work) -> dict[str, Any]:
    """Return what makes a system's videos what they are.

    Args:
        system: where it comes from.
        run: the opened checkpoint.
        work: prompts and seed.
    """
    return {
        **facts_of_videos(system, run),
        "seed": work.seed,
        "videos_per_prompt": work.videos_per_prompt,
        "prompts_sha256": hashlib.sha256("\n".join(work.prompts).encode()).hexdigest(),
    }


def check_facts(path: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Compare the facts of a folder's videos with those that were written for it.

    Args:
        path: of the file; it need not be there.
        facts: of the videos that are to be made.

    Raises:
        ValueError: naming what differs, so that old and new videos never mix.
    """
    kept = read_json(path) if path.is_file() else facts
    if names := [name for name in facts if kept.get(name) != facts[name]]:
        shown = "; ".join(f"{n}: {kept.get(n)!r}, now {facts[n]!r}" for n in names)
        raise ValueError(f"{path} describes other videos ({shown}): name another --out")


def video_paths(work: Work, folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the file of every video of a system, in the order in which they are made."""
    names = SampleNames("vbench")
    captions = (prompt for prompt in work.prompts for _ in range(work.videos_per_prompt))
    return [folder / f"{names.next(caption)}.mp4" for caption in captions]


def own_batches(
    paths: Sequence[pathlib.Path], batch_size: int, work: Work
) -> dict[int, Sequence[pathlib.Path]]:
    """Return the batches of this part that are not complete: number of the first video -> files.

    Args:
        paths: of all videos.
        batch_size: videos made at once.
        work: which part of them.
    """
    starts = range(0, len(paths), batch_size)[work.part :: work.num_parts]
    batches = {start: paths[start : start + batch_size] for start in starts}
    return {s: files for s, files in batches.items() if not all(p.is_file() for p in files)}


def request(
    system: System, run: OpenedRun, work: Work, folder: pathlib.Path
) -> tuple[RequestedVideos, Decode]:
    """Return all videos of a system, still to be made, and what turns latents into pixels.

    Args:
        system: its text encoder and autoencoder.
        run: its network.
        work: what to make.
        folder: for the files.

    Raises:
        ValueError: for a run without text, weights that are not the run's, or a prompt that cannot
            be the name of a file there.
    """
    dataset, spec = run.experiment.dataset, run.experiment.sample
    if dataset.num_digits:
        raise ValueError("it was trained on labels, and a prompt is text")
    if (decode := open_decoder(dataset, spec.video_weights)) is None:
        raise ValueError("it needs video_weights, to turn latents into videos")
    flags = SampleFlags(
        captions=work.prompts,
        videos_per_prompt=work.videos_per_prompt,
        negative_prompt=system.negative_prompt,
        text_weights=system.text_weights,
        naming="vbench",
    )
    asked = request_videos(run, flags, num_videos=None, seed=work.seed)
    check_names(folder, asked.captions, "vbench")
    return asked, decode


def make_videos(
    name: str,
    asked: RequestedVideos,
    decode: Decode,
    batches: Mapping[int, Sequence[pathlib.Path]],
    fps: float,
) -> None:
    """Make batches of videos.

    Args:
        name: of the system.
        asked: all of its videos.
        decode: latents to pixels.
        batches: what `own_batches` returns.
        fps: frames per second.
    """
    with Progress(len(batches), label=name, unit="batch") as progress:
        for done, (start, paths) in enumerate(batches.items(), 1):
            videos = to_uint8(decode(asked.make(start)))
            for path, video in zip(paths, videos, strict=True):
                write_mp4(path, video, fps=fps)
            progress.update(done)


def write_page(report: Mapping[str, Any]) -> str:
    """Return the table, and what is still to be done, as Markdown."""
    systems = report["systems"]
    measured = {name: _percent(row["scores"]) for name, row in systems.items()}
    seed = f"Seed {report['seed']}, {report['prompts']} prompts. Command: `{report['command']}`"
    note = (
        "VBench's scores in per cent; a total needs all sixteen dimensions. `-` in a measured line "
        "is not scored; in a line of the paper, not at hand."
    )
    parts = ["# VBench (Table 2)", seed, beside_published(vbench.COLUMNS, measured, SCORES), note]
    parts.append("\n".join(f"- {n}: {shown_hash(row['setting'])}" for n, row in systems.items()))
    for name, row in systems.items():
        if row["missing_videos"]:
            parts.append(f"{name}: {row['missing_videos']} videos are still to be made.")
        elif not row["scores"]:
            parts.append(f"{name}: all videos are there; score them, then give this command again:")
            parts.append(f"```bash\n{row['command']}\n```")
    return "\n\n".join(parts) + "\n"


def _percent(scores: Mapping[str, float]) -> dict[str, float]:
    values = {**scores, **vbench.totals(scores)}
    return {name: 100.0 * value for name, value in values.items() if value is not None}


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("experiments.table2", __doc__)
    parser.add_argument("--systems", required=True, type=pathlib.Path, help="JSON file of systems")
    parser.add_argument("--prompts", required=True, help="vbench, or a file with one a line")
    parser.add_argument("--info", type=pathlib.Path, help="VBench_full_info.json")
    parser.add_argument("--dimensions", default="", help="of VBench; all by default")
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--only", default="", help="these systems of the file")
    parser.add_argument("--videos_per_prompt", type=int, default=vbench.VIDEOS_PER_PROMPT)
    parser.add_argument("--seed", type=int, default=0, help="of all videos")
    parser.add_argument("--part", default="1/1", help="this host's share of the work, as in 2/4")
    return parser


if __name__ == "__main__":
    sys.exit(main())
