"""Every launcher explains itself, and the commands of README and docs are ones it takes."""

import pathlib
import re
import shlex
from collections.abc import Callable, Sequence

import pytest

from launch import gke, slurm, sweep, tpu_vm
from tests.launch.stand_ins import commands_of
from tests.tiny import REPO

MAINS: dict[str, Callable[[Sequence[str]], int]] = {
    "gke": gke.main,
    "slurm": slurm.main,
    "sweep": sweep.main,
    "tpu_vm": tpu_vm.main,
}


@pytest.mark.parametrize("name", MAINS)
def test_help_says_what_it_does_and_how_it_ends(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        MAINS[name](["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for word in (f"python -m launch.{name}", "--dry-run", "--config", "Exit codes: 0"):
        assert word in text


@pytest.mark.parametrize("name", ["gke", "slurm", "tpu_vm"])
def test_the_pages_command_is_one_that_the_launcher_takes(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    texts = [(REPO / page).read_text() for page in ("README.md", "docs/scaling.md")]
    joined = "\n".join(texts).replace("\\\n", " ")
    lines = set(re.findall(rf"^python -m launch\.{name} (.*)$", joined, re.MULTILINE))
    (line,) = {" ".join(line.split()) for line in lines}
    setup = tmp_path / "mount.sh"
    setup.touch()
    arguments = shlex.split(line.replace("mount.sh", str(setup)))
    assert MAINS[name]([*arguments, "--dry-run"]) == 0
    commands = commands_of(capsys.readouterr().out)
    assert {command[0] for command in commands} <= {"gcloud", "kubectl", "sbatch", "mkdir"}
