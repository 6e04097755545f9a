"""What the command lines of experiments, benchmarks and sweeps share."""

import argparse
import os
import pathlib

from tpdiff_jax.checks import check_no_address


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
    seeds = [int(seed) for seed in split_names(text)]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds={text}; allowed: whole numbers that differ, at least one")
    return seeds


def output_folder(text: str) -> pathlib.Path:
    """Return the path of `--out`, a folder, there or not; the type of that argument.

    Raises:
        ArgumentTypeError: for what can be no folder, or cannot be written: after an hour of
            measuring, or training, it would be too late to say so.
    """
    path = output_file(text)
    if os.path.lexists(path) and not (path.is_dir() and os.access(path, os.W_OK)):
        raise argparse.ArgumentTypeError(f"--out={text} is no folder that can be written")
    return path


def output_file(text: str) -> pathlib.Path:
    """Return the path of `--out`, a file or folder, there or not; the type of that argument.

    Raises:
        ArgumentTypeError: for an address such as gs://bucket, or where nothing can be made.
    """
    try:
        check_no_address("--out", text)
        around = next(p for p in pathlib.Path(text).absolute().parents if os.path.lexists(p))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not (around.is_dir() and os.access(around, os.W_OK | os.X_OK)):
        raise argparse.ArgumentTypeError(f"--out={text}: {around} is no folder that can be written")
    return pathlib.Path(text)
