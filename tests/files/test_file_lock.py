"""The lock: one holder, released however it ends, and no obstacle where there is nobody."""

import errno
import fcntl
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from absl import logging

from tests.tiny import REPO
from tpdiff_jax.files import file_lock
from tpdiff_jax.files.file_lock import hold
from tpdiff_jax.training.training_folder import only_trainer

HOLD_ON = """
import pathlib, sys, time
from tpdiff_jax.files.file_lock import hold
with hold(pathlib.Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "lock"


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the log warns of."""
    lines: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    return lines


def test_a_second_holder_is_refused_until_the_first_lets_go(path: pathlib.Path) -> None:
    with hold(path, "busy"):
        for patience in (None, 100.0):
            with pytest.raises(ValueError, match=r"busy: process \d+ on "):
                with hold(path, "busy", patience=patience):
                    pass
    with hold(path, "busy"):
        pass


def test_a_killed_holder_is_no_obstacle(path: pathlib.Path) -> None:
    command = [sys.executable, "-c", HOLD_ON, str(path)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(ValueError, match=f"busy: process {holder.pid} on "):
                with hold(path, "busy"):
                    pass
        finally:
            holder.send_signal(signal.SIGKILL)
        holder.wait()
        with hold(path, "busy"):
            pass


def of_another_machine(path: pathlib.Path) -> None:
    path.write_text("process 7 on elsewhere\nanother-boot\n")


def test_a_lock_left_by_a_vanished_machine_is_waited_for_and_passed_over(
    path: pathlib.Path, warnings: list[str]
) -> None:
    with hold(path, "busy"):
        of_another_machine(path)
        with pytest.raises(ValueError, match="busy: process 7 on elsewhere"):
            with hold(path, "busy"):
                pass
        with hold(path, "busy", patience=0.2):
            with pytest.raises(ValueError, match="busy"), hold(path, "busy", patience=0.2):
                pass
    assert ["waiting up to" in line for line in warnings] == [True, False]
    assert "vanished" in warnings[1]


def test_a_lock_that_another_machine_lets_go_of_is_taken(
    path: pathlib.Path, warnings: list[str]
) -> None:
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        of_another_machine(path)

        def let_go() -> None:
            while not warnings:
                time.sleep(0.01)
            fcntl.flock(other, fcntl.LOCK_UN)

        letting_go = threading.Thread(target=let_go, daemon=True)
        letting_go.start()
        with hold(path, "busy", patience=60.0):
            assert "elsewhere" not in path.read_text()
        letting_go.join()
    assert len(warnings) == 1


def test_without_locks_in_the_file_system_the_log_says_so_and_work_goes_on(
    path: pathlib.Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_lock.fcntl, "flock", refuse)
    with hold(path, "busy"), hold(path, "busy"):
        pass
    assert all("No locks available" in line for line in warnings) and len(warnings) == 2
    for patience in (None, 100.0):
        with pytest.raises(ValueError, match="lock cannot be locked: .*No locks available"):
            with hold(path, "busy", patience=patience, is_needed=True):
                pass


def test_a_second_trainer_is_kept_out_and_the_workdir_is_made(tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "new" / "run"
    with only_trainer(workdir):
        with pytest.raises(ValueError, match="is being trained in by another process: process"):
            with only_trainer(workdir):
                pass
