"""Stand-ins for cluster commands in front of PATH, and what they recorded."""

import json
import multiprocessing
import os
import pathlib
import runpy
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping

from tests.tiny import REPO

FAKES = pathlib.Path(__file__).parent / "fakes"
# Launchers come out of a process that has imported what they check a config with: that is all but
# all of their time. It has no threads and no devices, and knows no launcher.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["experiments.grid.overrides", "tpdiff_jax.experiment.build"])


class Cloud:
    """The stand-ins' state: a folder that they all know as $FAKE_CLOUD."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Put the stand-ins in place."""
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for source in FAKES.iterdir():
            if source.suffix == ".py" and source.stem != "trainer":
                # Most need no installed package, and start faster without looking for them.
                isolated = "" if "import yaml" in source.read_text() else "-S"
                self.put(source.stem, f'exec "{sys.executable}" {isolated} "{source}" "$@"')
            elif source.suffix == ".sh":
                self.put(source.stem, f'exec bash "{source}" "$@"')

    def put(self, name: str, line: str) -> None:
        """Make a program that runs one line of shell."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def launch(
        self, module: str, *arguments: str, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a launcher to its end as a user does, with the stand-ins in front of PATH."""
        said = [self.folder / name for name in ("stdout", "stderr")]
        process = FORKS.Process(target=_launch, args=(module, arguments, self.environment(), said))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, timeout)
        out, err = (path.read_text() for path in said)
        return subprocess.CompletedProcess(arguments, process.exitcode, out, err)

    def start(
        self, module: str, *arguments: str, stderr: int = subprocess.STDOUT
    ) -> subprocess.Popen[str]:
        """Start a launcher."""
        return subprocess.Popen(
            [sys.executable, "-m", f"launch.{module}", *arguments],
            cwd=REPO,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            # A shell's background job, such as a test run, hands on an ignored Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def environment(self) -> dict[str, str]:
        """Return the variables of a launcher and of what it starts."""
        return os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "FAKE_CLOUD": str(self.folder),
            "FAKE_PYTHON": sys.executable,
            "FAKE_TRAINER": str(FAKES / "trainer.py"),
            "FAKE_UV": str(FAKES / "uv.sh"),
            "JAX_PLATFORMS": "cpu",
        }

    def script(self, words: str) -> None:
        """Say what the trainer does at each start."""
        (self.folder / "script").write_text(words)

    def calls(self) -> list[list[str]]:
        """Return the arguments of all calls so far."""
        return self.lines("calls.jsonl")

    def lines(self, name: str) -> list:
        """Return the records of a file of JSON lines."""
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _launch(
    module: str,
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    said: list[pathlib.Path],
) -> None:
    """Be a launcher, in a process of its own."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(REPO)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open(os.devnull) as nothing, open(said[0], "w") as out, open(said[1], "w") as err:
        for file, number in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(file.fileno(), number)
    sys.argv = [module, *arguments]
    runpy.run_module(f"launch.{module}", run_name="__main__", alter_sys=True)


def commands_of(text: str) -> list[list[str]]:
    """Return the commands that a dry run printed, as lists."""
    lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    return [shlex.split(line) for line in lines]
