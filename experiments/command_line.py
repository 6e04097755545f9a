"""What the command lines of experiments, benchmarks and sweeps share."""

import argparse
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
    """Return the path of `--out`; the type of that argument.

    Raises:
        ArgumentTypeError: for an address such as gs://bucket, which is no folder.
    """
    try:
        check_no_address("--out", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return pathlib.Path(text)
