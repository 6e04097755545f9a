"""What --version shows; needs no jax, only its record."""

import importlib.metadata
import sys
from collections.abc import Sequence

import tpdiff_jax
from tpdiff_jax.command_line.exit_codes import ExitCode


def print_version_when_asked(argv: Sequence[str]) -> None:
    """Show the versions of this package and of jax for --version."""
    if any(arg in ("--version", "-version") for arg in argv[1:]):
        print(f"tpdiff_jax {tpdiff_jax.__version__}, jax {importlib.metadata.version('jax')}")
        sys.exit(ExitCode.DONE)
