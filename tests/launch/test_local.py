"""The local launcher: what it would run, whose exit code it returns, and that nobody is left."""

import os
import signal
import sys
import threading
import time

import pytest

from launch import local


def python(code):
    return [sys.executable, "-c", code]


def test_a_dry_run_prints_one_command_a_process_and_runs_none(capsys):
    argv = ["--processes=3", "--devices=4", "--dry-run", "--", "--workdir=x", "--config=c.py"]
    assert local.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines):
        assert "-m tpdiff_jax.main --workdir=x --config=c.py" in line
        assert f"--process_id={number}" in line and "--num_processes=3" in line
        assert "xla_force_host_platform_device_count=4" in line
    ports = {line.split("--coordinator_address=localhost:")[1].split()[0] for line in lines}
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--processes=0", "--", "--workdir=x"], "--processes is 0; allowed: at least 1"),
        (["--devices=0", "--", "--workdir=x"], "--devices is 0; allowed: at least 1"),
        (["--processes=2"], "arguments are missing"),
    ],
)
def test_bad_input_is_one_line_and_code_2(argv, message, capsys):
    assert local.main(argv) == 2
    assert message in capsys.readouterr().err


def test_the_exit_code_is_0_or_the_first_failure():
    assert local.run_all([python("pass")] * 2, {}) == 0
    assert local.run_all([python("pass"), python("raise SystemExit(3)")], {}) == 3


def test_when_one_is_killed_the_others_are_ended(monkeypatch):
    monkeypatch.setattr(local, "_GRACE_SECONDS", 0.1)
    kill_oneself = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    start = time.monotonic()
    assert local.run_all([python("import time; time.sleep(600)"), python(kill_oneself)], {}) == 137
    assert time.monotonic() - start < 300


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_wish_to_stop_goes_on_to_all_processes(number, tmp_path):
    wait = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(600)"
    )
    ready = [tmp_path / "0", tmp_path / "1"]

    def terminate_when_ready():
        while not all(path.exists() for path in ready):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=terminate_when_ready, daemon=True).start()
    assert local.run_all([[*python(wait), str(path)] for path in ready], {}) == 3


def test_a_second_ctrl_c_says_that_nothing_goes_on(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "run_all", interrupted)
    assert local.main(["--", "--workdir=x", "--config=none.py"]) == 130
    assert capsys.readouterr().err == "launch.local: all processes were ended at once\n"


@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", 3), ("SIGKILL", 137), ("SIGINT", 130), ("SIGABRT", 134)]
)
def test_sigterm_however_early_is_an_interruption_and_no_other_signal(name, code, monkeypatch):
    monkeypatch.setattr(local, "_GRACE_SECONDS", 0.1)
    kill = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    kill += f"os.kill(os.getpid(), signal.{name}); os.abort()"
    assert local.run_all([python(kill)], {}) == code


def test_variables_reach_the_processes():
    code = "import os; raise SystemExit(os.environ['JAX_PLATFORMS'] != 'cpu')"
    assert local.run_all([python(code)], local.extra_environment(2)) == 0


def test_the_devices_asked_for_win_over_what_the_caller_has_set(monkeypatch):
    forced = "--xla_force_host_platform_device_count"
    monkeypatch.setenv("XLA_FLAGS", f"{forced}=4 --xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "3")
    extra = local.extra_environment(2)
    # XLA takes the last of two, and jax's own number before XLA's.
    assert extra["XLA_FLAGS"].split()[1:] == ["--xla_cpu_enable_fast_math=false", f"{forced}=2"]
    assert extra["JAX_NUM_CPU_DEVICES"] == "2"
    code = "import jax; raise SystemExit(len(jax.devices()))"
    assert local.run_all([python(code)], extra) == 2
