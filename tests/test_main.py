"""The command line: help that helps, one clear line and exit code 2 for bad input."""

import importlib
import os
import pathlib
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.tiny import REPO, flags_of_sizes
from tpdiff_jax import main
from tpdiff_jax.command_line import Command
from tpdiff_jax.training.training_folder import only_trainer

FLOW, PREPARE = "--config=configs/flow.py", "--config=configs/prepare.py"
FEW_STEPS = ("--config.train.checkpoint_every_steps=1", "--config.pyramid.frame_strides=(1,)")


def run_main(
    *arguments: str, timeout: float = 300.0, preexec_fn: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "tpdiff_jax.main", *arguments],
        cwd=REPO,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=timeout,
        preexec_fn=preexec_fn,
        check=False,
    )


def test_help_explains_modes_and_exit_codes() -> None:
    out = run_main("--help")
    assert out.returncode == 0
    flags = ("--mode", "--config", "--workdir", "--labels", "--topology")
    for word in (*flags, "sample", "evaluate", "doctor", "plan", "Exit codes"):
        assert word in out.stdout
    assert "xml" not in out.stdout, "flags of other libraries are not ours to show"


def test_help_that_nobody_reads_to_its_end_is_no_error() -> None:
    unread, written = os.pipe()
    os.close(unread)
    with os.fdopen(written, "w") as pipe:
        command = [sys.executable, "-m", "tpdiff_jax.main", "--help"]
        out = subprocess.run(
            command, cwd=REPO, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (out.returncode, out.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([FLOW], "--workdir"),
        (["--workdir=W"], "--config"),
        ([FLOW, "--workdir=W", "--mode=fly"], "mode"),
        ([FLOW, "--workdir=W", "--config.train.num_stepz=3"], "num_stepz"),
        ([FLOW, "--workdir=W", "--config.train.num_steps=many"], "num_steps"),
        ([FLOW, "--workdir=W", "--config.pyramid.frame_strides=(4,3,1)"], "pyramid.frame_strides"),
        ([FLOW, "--workdir=W", "--config.alignment.mode=closest"], "alignment.mode"),
        (["--config=configs/nothing.py", "--workdir=W"], "nothing.py"),
        ([FLOW, "--workdir=/dev/null/run"], "--workdir=/dev/null/run cannot be written"),
        ([FLOW, "--workdir=/dev/null", "--mode=plan"], "/dev/null"),
        (["--workdir=W", "--mode=sample"], "config.json"),
        (["--workdir=W", "--mode=evaluate"], "config.json"),
        (["--workdir=W", "--mode=export"], "config.json"),
        (["--workdir=W", "--mode=doctor"], "config.json"),
        (["--workdir=W", "--mode=sample", "--num_videos=0"], "num_videos"),
        (["--workdir=W", "--mode=plan"], "--config"),
        ([FLOW, "--workdir=W", "--mode=plan", "--topology=v5p"], "--topology"),
        ([FLOW, "--workdir=W", "--mode=plan", "--frame_shape=a,b"], "--frame_shape"),
        (
            [FLOW, "--workdir=W", "--config.sample.video_weights=gs://b/v"],
            "weights=gs",
        ),
        ([FLOW, "--workdir=W", "--config.model.weights=s3://b/v"], "model.weights=s3://b/v"),
        ([PREPARE, "--workdir=W", "--mode=prepare", "--config.prepare.source=gs://b"], "source=gs"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    arguments: list[str], named: str, tmp_path: pathlib.Path
) -> None:
    out = run_main(*(argument.replace("=W", f"={tmp_path}") for argument in arguments))
    assert out.returncode == 2, out.stderr
    assert "Traceback" not in out.stderr
    (line,) = [line for line in out.stderr.splitlines() if line.startswith("tpdiff_jax: error:")]
    assert named in line
    assert list(tmp_path.iterdir()) in ([], [tmp_path / ".train.lock"])


def test_a_second_trainer_in_a_workdir_gets_one_line_and_code_2(tmp_path: pathlib.Path) -> None:
    with only_trainer(tmp_path):
        second = run_main(FLOW, f"--workdir={tmp_path}")
    assert second.returncode == 2 and "Traceback" not in second.stderr
    (line,) = [line for line in second.stderr.splitlines() if "tpdiff_jax: error:" in line]
    assert f"being trained in by another process: process {os.getpid()} on " in line
    assert not (tmp_path / "config.json").exists()


def test_ctrl_c_is_one_line_and_code_130(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(command: Command) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "run_mode", interrupt)
    with pytest.raises(SystemExit) as stop, caplog.at_level("WARNING", logger="absl"):
        main.main(["tpdiff_jax", "--mode=doctor", "--workdir=w"])
    assert stop.value.code == 130 and "interrupted" in caplog.text


@pytest.mark.parametrize("name", main.STOPS)
def test_every_exception_with_an_exit_code_is_there_under_its_name(name: str) -> None:
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), kind), Exception)


@pytest.mark.slow
def test_train_sample_evaluate_and_resume_as_a_user(tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    command = [FLOW, f"--workdir={workdir}", *flags_of_sizes()]
    first = run_main(*command)
    assert first.returncode == 0, first.stderr
    assert "label_accuracy" in first.stderr
    again = run_main(*command)
    assert again.returncode == 0, again.stderr
    assert "resumed from the checkpoint of step 6" in again.stderr
    other = run_main(*command, "--config.optim.learning_rate=0.5")
    assert other.returncode == 2
    assert "optim.learning_rate: saved 0.001, now 0.5" in other.stderr
    sampled = run_main(
        "--mode=sample", f"--workdir={workdir}", "--labels=3,1", f"--out={tmp_path}/s"
    )
    assert sampled.returncode == 0, sampled.stderr
    assert {p.name for p in (tmp_path / "s").iterdir()} >= {"0000_label_3.mp4", "grid.gif"}
    evaluated = run_main("--mode=evaluate", f"--workdir={workdir}", "--num_videos=4")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "ceiling" in evaluated.stdout
    assert (workdir / "evaluation_00000006.json").is_file()


@pytest.mark.slow
def test_a_full_disk_ends_with_code_6_and_with_room_again_the_run_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    command = [FLOW, f"--workdir={tmp_path}", *flags_of_sizes(), *FEW_STEPS]
    assert run_main(*command, "--config.train.num_steps=1").returncode == 0
    folder = tmp_path / "checkpoints" / "1"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def no_room() -> None:  # no file can grow beyond 20 kB; the parameters need more
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    full = run_main(*command, "--config.train.num_steps=4", preexec_fn=no_room)
    assert full.returncode == 6, full.stderr
    assert "Traceback" not in full.stderr
    (line,) = [line for line in full.stderr.splitlines() if line.startswith("tpdiff_jax: error:")]
    assert "step 2 could not be saved" in line and "untouched: [1]" in line
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = run_main(*command, "--config.train.num_steps=4")
    assert again.returncode == 0, again.stderr
    assert "resumed from the checkpoint of step 1" in again.stderr
