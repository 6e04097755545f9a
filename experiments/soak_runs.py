"""One life of a training process: started as a user does, watched, killed when its time has come.

Kinds of kill, taken in turn so that every soak has them all:

    any       SIGKILL after a random time, start-up and compilation included
    writing   SIGKILL while the files of a checkpoint are being written, the first save after a
              random time in the training loop: the run gets on from one kill to the next
    hashing   SIGKILL between its last file and its final name, the same
    term      SIGTERM, the notice of preemption, at a random time in the training loop
"""

import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tpdiff_jax.run_folder.checkpoint_folder import SAVING, list_steps
from tpdiff_jax.run_log.json_lines import METRICS_FILE

KINDS = ("any", "writing", "hashing", "term")
LOG_FILE = "log.txt"
_LOOK_SECONDS = 0.001  # a tiny checkpoint is written in some ten milliseconds
_MEMORY_SECONDS = 1.0
_HASHING = re.compile(rf"\d+{re.escape(SAVING)}")
_WRITING = re.compile(rf"{_HASHING.pattern}\..+")


class Kill(NamedTuple):
    """A planned kill: its kind and, where time decides, seconds to wait."""

    kind: str
    seconds: float


class Life(NamedTuple):
    """What became of one process.

    Attributes:
        code: exit code; negative is the signal that ended it.
        seconds: how long it lived.
        kind: the kill that reached it; None when it ended by itself.
        unfinished: names of unfinished saves on disk right after.
        newest_step: the newest finished checkpoint on disk right after; 0 without one.
        memory: resident bytes of the process, about once a second, with the seconds since start.
    """

    code: int
    seconds: float
    kind: str | None
    unfinished: list[str]
    newest_step: int
    memory: list[tuple[float, int]]


def live(command: Sequence[str], workdir: pathlib.Path, kill: Kill | None) -> Life:
    """Run `command` until it ends or `kill` ends it; its output goes to `log.txt`."""
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoints, metrics = workdir / "checkpoints", workdir / METRICS_FILE
    is_due = _trigger(kill, checkpoints, metrics)
    start, kind = time.monotonic(), None
    memory: list[tuple[float, int]] = []
    with open(workdir / LOG_FILE, "a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                age = time.monotonic() - start
                if kill is not None and kind is None and is_due(age):
                    kind = kill.kind
                    process.send_signal(signal.SIGTERM if kind == "term" else signal.SIGKILL)
                if age >= len(memory) * _MEMORY_SECONDS:
                    memory.append((age, _resident_bytes(process.pid)))
                time.sleep(_LOOK_SECONDS)
        finally:
            process.kill()
            process.wait()
    return Life(
        code=process.returncode,
        seconds=time.monotonic() - start,
        kind=kind,
        unfinished=[name for name in _names(checkpoints) if SAVING in name],
        newest_step=max(list_steps(checkpoints), default=0),
        memory=[entry for entry in memory if entry[1]],
    )


def _trigger(
    kill: Kill | None, checkpoints: pathlib.Path, metrics: pathlib.Path
) -> Callable[[float], bool]:
    """Return a function of the age that says whether the time has come."""
    if kill is None:
        return lambda age: False
    if kill.kind == "any":
        return lambda age: age >= kill.seconds
    before = _changed_at(metrics)
    loop_began_at: list[float] = []

    def has_trained(age: float) -> bool:
        if not loop_began_at and _changed_at(metrics) != before:
            loop_began_at.append(age)
        return bool(loop_began_at) and age >= loop_began_at[0] + kill.seconds

    if kill.kind == "term":
        return has_trained
    pattern = _WRITING if kill.kind == "writing" else _HASHING
    left_before = set(_names(checkpoints))

    def is_saving(age: float) -> bool:
        return has_trained(age) and any(
            pattern.fullmatch(name) and name not in left_before for name in _names(checkpoints)
        )

    return is_saving


def _names(folder: pathlib.Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _changed_at(path: pathlib.Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _resident_bytes(pid: int) -> int:
    """Resident memory as Linux tells it; 0 where it cannot be known."""
    try:
        pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def memory_growth(life: Life) -> dict[str, Any] | None:
    """Return resident bytes over the second half of a life: at its begin, its end, at most.

    The first half holds imports, compilation and the first use of every buffer.
    """
    later = [size for age, size in life.memory if age >= life.seconds / 2]
    if len(later) < 3:
        return None
    third = max(1, len(later) // 3)
    early, late = sorted(later[:third])[third // 2], sorted(later[-third:])[third // 2]
    return {"seconds": life.seconds, "early": early, "late": late, "peak": max(later)}
