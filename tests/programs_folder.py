"""Where the compiled programs of a test run lie, and whether they stay there for the next."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import MutableMapping

KEPT = "TEST_PROGRAMS"
"""Environment variable: a folder whose programs the next run of the tests reads."""


def open_programs(environment: MutableMapping[str, str]) -> str:
    """Point JAX, here and in what this process starts, to one folder; return it.

    What JAX reads from it was compiled from the same program by the same compiler with the same
    flags, so that a run with old programs tests what a run without them does.
    """
    kept = environment.get(KEPT)
    if kept:
        kept = os.path.abspath(kept)
        pathlib.Path(kept).mkdir(parents=True, exist_ok=True)
    environment["JAX_COMPILATION_CACHE_DIR"] = kept or tempfile.mkdtemp(prefix="tpdiff_jax_tests_")
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "true"
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return environment["JAX_COMPILATION_CACHE_DIR"]


def close_programs(folder: str, environment: MutableMapping[str, str]) -> None:
    """Remove the programs, unless they are to be kept."""
    if not environment.get(KEPT):
        shutil.rmtree(folder, ignore_errors=True)
