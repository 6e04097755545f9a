"""What the command lines of experiments, benchmarks and sweeps share."""

import argparse
import os
import pathlib

from tpdiff_jax.checks import at_home, check_no_address
from tpdiff_jax.files.folders import nearest_there


def command_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for `python -m PROGRAM`; the description keeps its lines."""
    return argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def split_names(text: str) -> list[str]:
    """Return the entries of a list joined by commas; none of an empty text."""
    return [name for name in text.split(",") if name]


def split_seeds(text: str) -> list[int]:
    """Return the numbers of `--seeds`.

    Raises:
        ValueError: without any, for one that comes twice, or for what is no whole number.
    """
    try:
        seeds = [int(seed) for seed in split_names(text)]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds={text}; allowed: whole numbers that differ, at least one")
    return seeds


def output_folder(text: str) -> pathlib.Path:
    """Return the path of `--out`, a folder, there or not; the type of that argument.

    Raises:
        ArgumentTypeError: for an address such as gs://bucket, for what can be no folder, or cannot
            be written: after an hour of measuring, or training, it would be too late to say so.
    """
    path = pathlib.Path(at_home(text))
    _check_room(text, path)
    return path


def output_file(text: str) -> pathlib.Path:
    """Return the path of `--out`, a file, there or not; the type of that argument.

    Raises:
        ArgumentTypeError: for an address such as gs://bucket, or where nothing can be made.
    """
    path = pathlib.Path(at_home(text))
    _check_room(text, path.parent)
    return path


def _check_room(text: str, folder: pathlib.Path) -> None:
    """Refuse a `--out` whose files would lie in a folder that can be neither used nor made."""
    try:
        check_no_address("--out", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    there = nearest_there(folder)
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise argparse.ArgumentTypeError(f"--out={text}: {there} is no folder that can be written")
