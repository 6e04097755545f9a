"""Shell scripts pass shellcheck: the launchers', and the stand-ins that test them."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.tiny import REPO

SCRIPTS = sorted(
    path for part in ("launch", "tests/launch") for path in (REPO / part).rglob("*.sh")
) + [REPO / ".ci" / "run"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(REPO)))
def test_shellcheck_finds_nothing(path: pathlib.Path) -> None:
    # pip puts it beside python; that folder is not always in PATH.
    beside = pathlib.Path(sys.executable).parent / "shellcheck"
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    assert program, "shellcheck is missing: pip install -r requirements-test.txt"
    out = subprocess.run([program, path], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stdout
