"""Videos of several runs in one animated picture: a row a run, a column a request.

    python -m experiments.side_by_side --workdirs=runs/vanilla,runs/flow
      --names=vanilla,pyramid --labels=0,1,2,3,4,5,6,7 --out=runs/beside.gif

Every run is asked for the same labels with the same seed, so that nothing is chosen by looking.

Exit codes: 0 done; 2 bad input.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

import tpdiff_jax
from experiments.command_line import command_parser, output_file, split_names
from tpdiff_jax.files.media import write_gif_grid
from tpdiff_jax.run_log.progress import Progress

EXIT_BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Sample every run and draw; return the exit code."""
    options = _parser().parse_args(argv)
    workdirs = split_names(options.workdirs)
    try:
        names = name_rows(workdirs, split_names(options.names))
        rows, fps = sample_rows(workdirs, split_names(options.labels), options.seed)
    except ValueError as error:
        print(f"side_by_side: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    options.out.parent.mkdir(parents=True, exist_ok=True)
    captions = [name for name in names for _ in range(rows.shape[1])]
    videos = rows.reshape(-1, *rows.shape[2:])
    write_gif_grid(
        options.out, videos, captions=captions, fps=fps, min_side=64, num_columns=rows.shape[1]
    )
    print(f"wrote {options.out}")
    return 0


def name_rows(workdirs: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return what stands under the videos of each run: `names`, or without any its folder's name.

    Raises:
        ValueError: without runs, or for another number of names.
    """
    if not workdirs:
        raise ValueError("--workdirs names no run")
    if names and len(names) != len(workdirs):
        raise ValueError(f"--names has {len(names)} entries for {len(workdirs)} runs")
    return list(names) or [pathlib.Path(workdir).name for workdir in workdirs]


def sample_rows(
    workdirs: Sequence[str], labels: Sequence[str], seed: int
) -> tuple[np.ndarray, float]:
    """Return uint8 videos [runs, n, f, h, w, c] and their frames per second.

    Args:
        workdirs: folders that training has made.
        labels: one a video; without any each run shows what its config samples.
        seed: of all runs.

    Raises:
        ValueError: for a folder that is no run, labels that it does not have, or runs whose videos
            differ in number, shape or frames per second.
    """
    rows: list[np.ndarray] = []
    rates: list[float] = []
    with Progress(len(workdirs), label="sample", unit="run") as progress:
        for workdir in workdirs:
            run = tpdiff_jax.open_run(workdir)
            rows.append(run.sample(labels=labels, seed=seed))
            if rows[-1].shape != rows[0].shape:
                shapes = f"{rows[-1].shape}, and those of {workdirs[0]} {rows[0].shape}"
                raise ValueError(f"videos [n, f, h, w, c] of {workdir} are {shapes}")
            rates.append(run.fps)
            if rates[-1] != rates[0]:
                rate = f"{rates[-1]:g}, and of {workdirs[0]} {rates[0]:g}"
                raise ValueError(f"frames per second of {workdir} are {rate}")
            progress.update(len(rows))
    return np.stack(rows), rates[0]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("experiments.side_by_side", __doc__)
    parser.add_argument("--workdirs", required=True, help="folders of runs, joined by commas")
    parser.add_argument("--names", default="", help="what stands under the videos of each")
    parser.add_argument("--labels", default="", help="one a column; by default the config's")
    parser.add_argument("--seed", type=int, default=0, help="of all runs")
    parser.add_argument("--out", required=True, type=output_file, help="GIF file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
