"""SIGTERM before the loop: code 3 at once, whatever the process is doing."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny import REPO, flags_of_sizes

START = "from tpdiff_jax.devices.early_stop import leave_at_sigterm; leave_at_sigterm(3)\n"
READY = "import sys, pathlib; pathlib.Path(sys.argv[1]).touch()\n"


def end_of(code: str, ready: pathlib.Path) -> tuple[int, str]:
    """Run Python code, send it SIGTERM when it is ready, return how it ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + code, str(ready)],
        cwd=REPO,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    return process.returncode, told


@pytest.mark.parametrize(
    "busy",
    {
        "waiting": "import time; time.sleep(600)",
        "counting": "while True: pass",
        # One long instruction of the main thread that lets others run, as compiling is.
        "inside a library": "import hashlib; hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)",
        "waiting for threads": (
            "import concurrent.futures as c, time\n"
            "with c.ThreadPoolExecutor(2) as p: list(p.map(time.sleep, [600, 600]))"
        ),
        "catching everything": (
            "import time\nwhile True:\n    try: time.sleep(600)\n    except BaseException: pass"
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_it_ends_with_its_code_whatever_it_is_doing(
    busy: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    start = time.monotonic()
    code, told = end_of(READY + busy[1], tmp_path / "ready")
    assert code == 3 and time.monotonic() - start < 100
    assert told.count("stopped by SIGTERM") == 1 and "Traceback" not in told


def test_what_takes_the_signal_over_keeps_it(tmp_path: pathlib.Path) -> None:
    takes_over = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    code, told = end_of(takes_over + READY + "import time; time.sleep(600)", tmp_path / "ready")
    assert (code, told) == (7, "")


def test_a_forked_workers_end_is_not_its_parents(tmp_path: pathlib.Path) -> None:
    forks = (
        "import os, signal, time\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(600)\n"
        "time.sleep(0.5); os.kill(child, signal.SIGTERM)\n"
        "_, status = os.waitpid(child, 0); time.sleep(0.5)\n"
        "os._exit(os.WTERMSIG(status))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", START + forks], cwd=REPO, capture_output=True, check=False
    )
    assert done.returncode == signal.SIGTERM and b"stopped" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.0, 4.0, 8.0])
def test_a_start_that_is_stopped_early_ends_with_code_3_and_the_same_command_goes_on(
    seconds: float, tmp_path: pathlib.Path
) -> None:
    command = [sys.executable, "-m", "tpdiff_jax.main", "--config=configs/flow.py"]
    command += [f"--workdir={tmp_path}", *flags_of_sizes(), "--config.train.num_steps=100000"]
    process = subprocess.Popen(
        command, cwd=REPO, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stderr=subprocess.PIPE
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 3, told.decode()
    assert b"Traceback" not in told
