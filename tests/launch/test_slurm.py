"""SLURM jobs: the flags, requeueing by exit code, and arguments that no shell reads."""

import pathlib
import subprocess

import pytest

from launch import slurm
from launch.job import FINAL_CODES
from launch.slurm import Allocation
from tests.launch.stand_ins import Cloud, commands_of
from tests.tiny import REPO

NASTY = "it's 100 % of; touch x `touch y` $(touch z)"


def submit(
    cloud: Cloud, script: str, *more: str, state: str = "RUNNING"
) -> subprocess.CompletedProcess[str]:
    """Submit a job whose trainer follows `script` at each start."""
    cloud.script(script)
    (cloud.folder / "job_state").write_text(state)
    cloud.put("python_of_the_cluster", 'exec "$FAKE_PYTHON" -S "$FAKE_TRAINER" "$@"')
    workdir = cloud.folder / NASTY
    python = f"--python={cloud.bin / 'python_of_the_cluster'}"
    arguments = ["--name=tp", f"--workdir={workdir}", python, "--config.train.num_steps=5"]
    return cloud.launch("slurm", *arguments, *more)


def codes(cloud: Cloud) -> list[str]:
    """Return how the batch script ended, run by run."""
    return (cloud.folder / "codes.txt").read_text().split()


def test_the_job_asks_for_one_task_on_each_gpu(cloud: Cloud) -> None:
    more = ["--nodes=2", "--gpus-per-node=8", "--time=24:00:00", "--partition=gpu"]
    batch = "--config.train.batch_size=64"  # over 16 devices
    out = submit(cloud, "0", *more, "--sbatch-flag=--mem=0", "--grace-seconds=90", batch)
    assert out.returncode == 0, out.stderr
    (asked,) = cloud.lines("sbatch.jsonl")
    assert (asked["nodes"], asked["ntasks_per_node"], asked["gpus_per_node"]) == ("2", "8", "8")
    assert (asked["time"], asked["partition"], asked["mem"]) == ("24:00:00", "gpu", "0")
    assert (asked["signal"], asked["requeue"], asked["open_mode"]) == ("TERM@90", True, "append")
    (start,) = cloud.lines("starts_worker0.jsonl")
    assert start["cwd"] == str(REPO)
    assert start["argv"] == [
        *("-m", "tpdiff_jax.main", "--config=configs/flow.py"),
        *(f"--workdir={cloud.folder / NASTY}", "--config.train.num_steps=5", batch),
    ]
    assert "start 0" in (cloud.folder / NASTY / "slurm-4711.log").read_text()
    assert not {path.name for path in [*cloud.folder.iterdir(), *REPO.iterdir()]} & {"x", "y", "z"}


def test_the_cores_asked_for_reach_the_tasks(cloud: Cloud) -> None:
    for asked, cores in (("--cpus-per-task=6", ["6"]), ("--nodes=1", ["6", "1"])):
        (cloud.folder / "starts_worker0.jsonl").unlink(missing_ok=True)
        assert submit(cloud, "0", asked).returncode == 0
        assert (cloud.folder / "cores.txt").read_text().split() == cores


def test_of_several_clusters_the_job_and_its_log_go_by_the_number_alone(cloud: Cloud) -> None:
    out = submit(cloud, "0", "--sbatch-flag=--clusters=alpha")
    assert out.returncode == 0, out.stderr
    (note,) = [line for line in out.stdout.splitlines() if line.startswith("# job")]
    assert note == f"# job 4711; its log: {cloud.folder / NASTY}/slurm-4711.log"


def test_without_gpus_one_task_runs_on_each_node() -> None:
    options = Allocation(nodes=3).options()
    assert {"--nodes=3", "--ntasks-per-node=1"} <= set(options)
    assert not [flag for flag in options if "gpus" in flag or "time" in flag]


def test_a_stopped_run_is_requeued_until_it_is_done(cloud: Cloud) -> None:
    assert submit(cloud, "3 3 0").returncode == 0
    assert codes(cloud) == ["3", "3", "0"]
    starts = cloud.lines("starts_worker0.jsonl")
    assert len(starts) == 3 and all(start == starts[0] for start in starts)
    log = (cloud.folder / NASTY / "slurm-4711.log").read_text()
    assert "start 0" in log and "start 2" in log, "the log is continued, not replaced"


def test_a_trainer_that_sigterm_ended_before_its_python_ran_is_requeued_too(cloud: Cloud) -> None:
    assert submit(cloud, "143 3 0").returncode == 0
    assert codes(cloud) == ["143", "3", "0"]


@pytest.mark.parametrize("code", ["0", "1", "137", "134", *map(str, FINAL_CODES)])
def test_no_other_end_is_tried_again(cloud: Cloud, code: str) -> None:
    submit(cloud, f"{code} 0")
    assert codes(cloud) == [code]


def test_a_cancelled_job_stays_cancelled(cloud: Cloud) -> None:
    submit(cloud, "3 0", state="COMPLETING")
    assert codes(cloud) == ["3"]
    assert "not requeued" in (cloud.folder / NASTY / "slurm-4711.log").read_text()


def test_requeueing_comes_to_an_end(cloud: Cloud) -> None:
    submit(cloud, "3 3 3 3", "--max-restarts=2")
    assert codes(cloud) == ["3", "3", "3"]


def test_a_dry_run_prints_what_a_real_run_calls_and_calls_nothing(cloud: Cloud) -> None:
    dry = submit(cloud, "0", "--dry-run", "--qos=spare")
    assert dry.returncode == 0, dry.stderr
    assert not cloud.lines("sbatch.jsonl") and not (cloud.folder / NASTY).exists()
    make, sbatch = commands_of(dry.stdout)
    assert make == ["mkdir", "-p", "--", str(cloud.folder / NASTY)]
    subprocess.run(make, check=True)
    real = submit(cloud, "0", "--qos=spare")
    assert commands_of(real.stdout) == [make, sbatch]
    (asked,) = cloud.lines("sbatch.jsonl")
    assert sbatch[-len(asked["arguments"]) :] == asked["arguments"]
    assert f"--qos={asked['qos']}" in sbatch


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--nodes=0", "--nodes is 0; allowed: at least 1"),
        ("--gpus-per-node=-1", "--gpus-per-node is -1; allowed: at least 0"),
        ("--grace-seconds=0", "--grace-seconds is 0; allowed: at least 1"),
        ("--max-restarts=-1", "--max-restarts is -1; allowed: at least 0"),
        ("--cpus-per-task=0", "--cpus-per-task is 0; allowed: at least 1"),
        ("--cpus-per-task=-3", "--cpus-per-task is -3; allowed: at least 1"),
        ("--python=", "--python='' must be a program's name or path"),
        ("--python=-x", "--python='-x' must be a program's name or path"),
        ("--workdir=runs/here", "must be an absolute path"),
        ("--partiton=gpu", "--partiton=gpu"),
    ],
)
def test_bad_input_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], argument: str, named: str
) -> None:
    assert slurm.main(["--name=tp", "--workdir=/runs/tp", argument]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("launch.slurm: error: ") and named in line


def test_a_refused_submission_is_a_failure(cloud: Cloud, tmp_path: pathlib.Path) -> None:
    out = submit(cloud, "0", "--sbatch-flag=--no-such-flag")
    assert out.returncode == 1
    assert "unrecognized arguments: --no-such-flag" in out.stderr
