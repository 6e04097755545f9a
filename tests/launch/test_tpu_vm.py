"""Cloud TPU slices: the right commands, every end of a job, and no input that a shell could run."""

import pathlib
import re
import shlex
import signal
import subprocess
import tarfile
import time

import pytest

from launch import gke, job, tpu_vm
from launch.archive import pack_code
from launch.tpu_job import judge, parse_statuses
from launch.tpu_slice import TpuSlice, default_runtime
from tests.launch.stand_ins import Cloud, commands_of
from tests.tiny import REPO
from tpdiff_jax.command_line import EXIT_CODES, ExitCode

SLICE = ["--name=tp", "--zone=here-1a", "--accelerator-type=v6e-8", "--spot"]
NASTY = '/runs/it\'s; touch "$HOME/injected" `touch x` $(touch y) & last'


def run(cloud: Cloud, script: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a job whose trainer follows `script` at each start."""
    cloud.script(script)
    arguments = ["run", *SLICE, "--poll-seconds=0.05", "--local-workdir", f"--workdir={NASTY}"]
    return cloud.launch("tpu_vm", *arguments, "--config.train.num_steps=5", *more)


def verbs(cloud: Cloud) -> list[str]:
    """Return what gcloud was asked to do, repetitions and questions left out."""
    names = [call[3] for call in cloud.calls() if call[3] != "describe"]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_a_job_runs_on_all_workers_from_request_to_deletion(cloud: Cloud) -> None:
    out = run(cloud, "0")
    assert out.returncode == 0, out.stderr + out.stdout
    assert verbs(cloud) == ["create", "scp", "ssh", "delete"]
    (create,) = [call for call in cloud.calls() if call[3] == "create"]
    assert {"--spot", "--node-id=tp", "--runtime-version=v2-alpha-tpuv6e"} <= set(create)
    for worker in ("worker0", "worker1"):
        (start,) = cloud.lines(f"starts_{worker}.jsonl")
        assert start["argv"] == [
            *("-m", "tpdiff_jax.main", "--config=configs/flow.py"),
            *(f"--workdir={NASTY}", "--config.train.num_steps=5"),
        ]
        assert start["cwd"].endswith(f"{worker}/tpdiff_jobs/tp/code")
    assert "start 0 of worker0: 0" in out.stdout
    assert "start 0 of worker1" not in out.stdout, "one log is enough"


def test_nothing_in_a_workdir_reaches_a_shell(cloud: Cloud) -> None:
    run(cloud, "0", "--keep")
    names = {path.name for path in cloud.folder.rglob("*")}
    assert not names & {"injected", "x", "y"}


def test_installation_uses_the_copied_checkout_and_the_tpu_extra(cloud: Cloud) -> None:
    assert run(cloud, "0", "--keep").returncode == 0
    for worker in ("worker0", "worker1"):
        code = cloud.folder / worker / "tpdiff_jobs" / "tp" / "code"
        assert (code / "configs/flow.py").read_text() == (REPO / "configs/flow.py").read_text()
        calls = (cloud.folder / worker / "uv_calls.txt").read_text().splitlines()
        assert shlex.split(calls[-1])[-3:] == ["-r", "code/requirements.txt", "jax[tpu]"]
    assert "delete" not in verbs(cloud)


def test_a_preempted_slice_is_replaced_and_the_same_command_goes_on(cloud: Cloud) -> None:
    out = run(cloud, "preempt 0")
    assert out.returncode == 0, out.stderr + out.stdout
    assert verbs(cloud) == [*("create", "scp", "ssh", "delete") * 2]
    first, second = cloud.lines("starts_worker0.jsonl")
    assert first == second
    assert "slice lost: restart 1" in out.stdout


@pytest.mark.parametrize("word", ["3", "crash"])
def test_an_interrupted_trainer_starts_again_on_the_slice_it_has(cloud: Cloud, word: str) -> None:
    out = run(cloud, f"{word} 0")
    assert out.returncode == 0, out.stderr + out.stdout
    assert verbs(cloud) == ["create", "scp", "ssh", "delete"]
    assert len(cloud.lines("starts_worker0.jsonl")) == len(cloud.lines("starts_worker1.jsonl")) == 2
    assert "interrupted: restart 1" in out.stdout


@pytest.mark.parametrize("code", [2, 7])
def test_a_failure_is_not_tried_again_and_its_code_is_returned(cloud: Cloud, code: int) -> None:
    out = run(cloud, f"{code} 0")
    assert out.returncode == code
    assert len(cloud.lines("starts_worker0.jsonl")) == 1
    assert verbs(cloud)[-1] == "delete", "a slice that waits for nobody costs money"
    assert out.stdout.count(f"start 0 of worker1: {code}") == 1, "the logs of all workers are shown"


def test_restarts_come_to_an_end(cloud: Cloud) -> None:
    out = run(cloud, "3 3 3 3 0", "--max-restarts=2")
    assert out.returncode == 1
    assert len(cloud.lines("starts_worker0.jsonl")) == 3


def test_the_same_command_watches_a_running_job_again(cloud: Cloud) -> None:
    cloud.script("hang")
    arguments = ["run", *SLICE, "--poll-seconds=0.05", "--local-workdir", "--workdir=/runs/a"]
    with cloud.start("tpu_vm", *arguments) as first:
        while not cloud.lines("starts_worker1.jsonl"):
            time.sleep(0.05)
            assert first.poll() is None, first.communicate()
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 130
    copies = [call for call in cloud.calls() if call[3] == "scp"]
    with cloud.start("tpu_vm", *arguments, "--max-restarts=0") as second:
        lines = iter(second.stdout or [])
        assert any("tp runs already" in line for line in lines)
        stopped = cloud.launch("tpu_vm", "stop", *SLICE)
        assert stopped.returncode == 0, stopped.stderr
        assert any("interrupted" in line for line in lines)
        second.wait(30)
    assert [call for call in cloud.calls() if call[3] == "scp"] == copies
    assert len(cloud.lines("starts_worker0.jsonl")) == 1


def test_a_slice_deleted_by_hand_is_not_asked_for_again(cloud: Cloud) -> None:
    cloud.script("hang " * 9)  # stopped while it is watched, it is started again
    arguments = ["run", *SLICE, "--poll-seconds=0.05", "--local-workdir", "--workdir=/runs/a"]
    with cloud.start("tpu_vm", *arguments) as job:
        while not cloud.lines("starts_worker1.jsonl"):
            time.sleep(0.05)
        assert cloud.launch("tpu_vm", "stop", *SLICE).returncode == 0
        assert cloud.launch("tpu_vm", "delete", *SLICE).returncode == 0
        assert job.wait(60) == 1
    assert len([call for call in cloud.calls() if call[3] == "create"]) == 1


def test_a_workdir_on_a_workers_own_disk_is_refused(cloud: Cloud) -> None:
    cloud.script("0")
    workdir = f"--workdir={cloud.folder}/worker0/runs"
    out = cloud.launch("tpu_vm", "run", *SLICE, "--poll-seconds=0.05", workdir)
    assert out.returncode == 1
    assert "own disk" in out.stderr
    assert not cloud.lines("starts_worker0.jsonl")


def test_a_setup_script_runs_before_anything_else(cloud: Cloud, tmp_path: pathlib.Path) -> None:
    setup = tmp_path / "mount it.sh"
    setup.write_text('[ ! -e "$HOME/tpdiff_jobs" ] && touch "$HOME/mounted"\n')
    assert run(cloud, "0", "--keep", f"--setup={setup}").returncode == 0
    assert all((cloud.folder / name / "mounted").exists() for name in ("worker0", "worker1"))


def test_a_setup_script_may_lie_in_the_users_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mount.sh").touch()
    words = ["run", *SLICE, "--workdir=/mnt/a", "--setup=~/mount.sh", "--dry-run"]
    assert tpu_vm.main(words) == 0
    assert f" {tmp_path}/mount.sh " in capsys.readouterr().out


def test_a_dry_run_prints_what_a_real_run_calls_and_calls_nothing(cloud: Cloud) -> None:
    dry = run(cloud, "0", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert cloud.calls() == []
    printed = [command[1:] for command in commands_of(dry.stdout) if command[4] != "describe"]
    assert run(cloud, "0").returncode == 0
    called = [call for call in cloud.calls() if call[3] != "describe"]
    archive = [flag for call in (*printed, *called) for flag in call if "code.tar.gz" in flag]

    def plain(calls: list[list[str]]) -> list[list[str]]:
        named = [["ARCHIVE" if flag in archive else flag for flag in call] for call in calls]
        return [call for i, call in enumerate(named) if call not in named[:i]]

    asked_later = [call for call in plain(called) if call not in plain(printed)]
    assert [call for call in plain(called) if call in plain(printed)] == plain(printed)
    assert all("tpu_worker.sh log" in " ".join(call) for call in asked_later)


def test_launchers_act_on_every_code_of_the_trainer_and_texts_name_them() -> None:
    # Planning and replaying are no jobs, and jobs have no keyboard.
    never = {ExitCode.DOES_NOT_FIT, ExitCode.DIFFERS, ExitCode.INTERRUPTED}
    acted_on = {ExitCode.DONE, ExitCode.PREEMPTED, *job.FINAL_CODES}
    assert acted_on | never == set(ExitCode) == set(EXIT_CODES) and not acted_on & never
    script = (REPO / "launch" / "slurm_job.sh").read_text()
    assert f"readonly exit_preempted={ExitCode.PREEMPTED.value}\n" in script
    assert f"readonly exit_sigterm={128 + signal.SIGTERM}\n" in script
    assert not set(job.INTERRUPTED_CODES) & set(job.FINAL_CODES)
    named = {int(code) for code in re.findall(r"\((\d+)\)", gke.__doc__ or "")}
    assert set(map(int, job.FINAL_CODES)) <= named
    readme = " ".join((REPO / "README.md").read_text().split())
    listed = re.search(r"Exit codes: (.*?)\.", readme)
    assert listed is not None
    assert [int(code) for code in re.findall(r"\b(\d+) [A-Za-z]", listed[1])] == list(ExitCode)


def test_codes_are_asked_in_the_order_of_what_they_explain() -> None:
    def outcome(*states: str, workers: int | None = None):  # type: ignore[no-untyped-def]
        text = "noise\n" + "".join(f"tpu_worker h{i} {s}\n" for i, s in enumerate(states))
        return judge(parse_statuses(text), workers or len(states))

    assert outcome("running", "running") is None
    assert outcome("exited 0", "running") is None
    assert outcome("exited 0", workers=2) is None, "one worker has not answered"
    assert outcome("exited 0", "exited 0") == ("ended", 0)
    assert outcome("exited 3", "exited 134") == ("interrupted", ExitCode.PREEMPTED)
    assert outcome("exited 143", "exited 134") == ("interrupted", ExitCode.PREEMPTED)
    assert outcome("exited 137", "running") == ("ended", 137)
    assert outcome("exited 134", "lost") == ("interrupted", ExitCode.PREEMPTED)
    assert outcome("exited 1", "running") == ("ended", 1)
    for code in job.FINAL_CODES:
        assert outcome("exited 134", f"exited {code}") == ("ended", code)
        assert outcome(f"exited {code}", "exited 3") == ("ended", code)
        assert outcome("exited 143", f"exited {code}") == ("ended", code)


def test_the_archive_holds_code_and_nothing_that_lies_about(tmp_path: pathlib.Path) -> None:
    wanted = {"configs/mine.py", "tpdiff_jax/data/x.npz", "requirements.txt"}
    lying_about = {"configs/.env", "runs/a/config.json", "launch/__pycache__/x.pyc", "key.json"}
    for name in wanted | lying_about:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    target = tmp_path / "archive.tar.gz"
    assert pack_code(tmp_path, target) == len(wanted)
    with tarfile.open(target) as archive:
        assert set(archive.getnames()) == wanted


@pytest.mark.parametrize(
    ("accelerator_type", "runtime"),
    [("v5litepod-16", "v2-alpha-tpuv5-lite"), ("v5p-64", "v2-alpha-tpuv5"), ("v4-8", None)],
)
def test_the_software_version_follows_from_the_accelerator(
    accelerator_type: str, runtime: str | None
) -> None:
    assert default_runtime(accelerator_type) == (runtime or "tpu-ubuntu2204-base")


def test_the_project_is_named_in_every_command_once_given() -> None:
    tpu = TpuSlice(
        name="tp",
        zone="here-1a",
        accelerator_type="v6e-8",
        runtime_version="v2-alpha-tpuv6e",
        project="mine",
    )
    commands = [tpu.create(), tpu.delete(), tpu.describe(), tpu.describe_node(), tpu.ssh(["true"])]
    assert all("--project=mine" in command for command in commands)
    assert "--spot" not in tpu.create()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "--workdir=gs://bucket/run"], "gs://bucket/run is an address"),
        (["run", "--workdir=runs/here"], "--workdir=runs/here must be an absolute path"),
        (["run"], "--workdir is required"),
        (["run", "--workdir=/r", "--name=Big Job"], "--name='Big Job'"),
        (["run", "--workdir=/r\nx"], "control character"),
        (["run", "--workdir=/r", "--config=configs/none.py"], "--config=configs/none.py"),
        (["run", "--workdir=/r", "--config=../flow.py"], "--config=../flow.py"),
        (["run", "--workdir=/r", "--confg.train.seed=1"], "--confg.train.seed=1"),
        (["run", "--workdir=/r", "--accelerator-type=v9-8"], "--accelerator-type=v9-8"),
        (["run", "--workdir=/r", "--setup=none.sh"], "--setup=none.sh"),
        (["stop", "--config.train.seed=1"], "only `run`"),
    ],
)
def test_bad_input_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert tpu_vm.main([*SLICE, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("launch.tpu_vm: error: ") and named in line
