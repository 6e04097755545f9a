"""A job on the workers of a slice: install, start, watch, stop, and what their end means."""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from launch.job import FINAL_CODES, INTERRUPTED_CODES, Job
from launch.runner import PATIENCE, CommandFailed, Runner
from launch.tpu_slice import TpuSlice, is_lost
from tpdiff_jax.command_line import ExitCode

_STATUS = re.compile(r"^tpu_worker (\S+) (running|absent|lost|exited (\d+))$", re.MULTILINE)
_TAIL_LINES = "40"


class Outcome(NamedTuple):
    """How a job ended.

    Attributes:
        kind: "ended" with the trainer's exit code, "interrupted" (the same command goes on), or
            "slice lost" (so it does, on a new slice).
        code: the trainer's exit code; that of interruption where there is none.
    """

    kind: str
    code: int


class WorkerStatus(NamedTuple):
    """One worker: its host, "running", "absent", "lost" or "exited", and its exit code."""

    host: str
    state: str
    code: int | None


def parse_statuses(text: str) -> list[WorkerStatus]:
    """Return what the workers said, whatever else stands in between."""
    return [
        WorkerStatus(host, state.split()[0], int(code) if code else None)
        for host, state, code in _STATUS.findall(text)
    ]


def judge(statuses: Sequence[WorkerStatus], num_workers: int) -> Outcome | None:
    """Return the outcome of the whole job, None while it runs.

    One worker that stops or dies takes the others down with other codes, so the codes are asked
    in the order of what they explain: those that the trainer gives when it would be no use to go
    on, then a lost or preempted worker, then failure.

    Args:
        statuses: one of each worker that answered.
        num_workers: workers of the slice.
    """
    codes = [status.code for status in statuses if status.code is not None]
    if final := [code for code in codes if code in FINAL_CODES]:
        return Outcome("ended", final[0])
    is_interrupted = any(code in INTERRUPTED_CODES for code in codes)
    if is_interrupted or any(s.state in ("lost", "absent") for s in statuses):
        return Outcome("interrupted", ExitCode.PREEMPTED)
    if failed := [code for code in codes if code != ExitCode.DONE]:
        return Outcome("ended", failed[0])
    if len(codes) == len(statuses) == num_workers:
        return Outcome("ended", ExitCode.DONE)
    return None


class WorkerCommands(NamedTuple):
    """The job's commands on the workers, as arguments for `TpuSlice.ssh`."""

    name: str

    @property
    def folder(self) -> str:
        """The job's folder, from the home folder of a worker."""
        return f"tpdiff_jobs/{self.name}"

    def script(self, *arguments: str) -> list[str]:
        """Call tpu_worker.sh."""
        return ["bash", f"{self.folder}/code/launch/tpu_worker.sh", *arguments]


def install(
    tpu: TpuSlice,
    job: Job,
    runner: Runner,
    *,
    archive: pathlib.Path,
    setup: pathlib.Path | None,
    is_workdir_checked: bool,
) -> None:
    """Copy the code to all workers and install what it needs.

    Args:
        tpu: an active slice.
        job: the job.
        runner: how to run commands.
        archive: the packed code.
        setup: script to run first, such as one that mounts the shared file system.
        is_workdir_checked: whether to refuse a workdir on the workers' own disks.

    Raises:
        CommandFailed: when any of it fails on any worker.
    """
    worker = WorkerCommands(job.name)
    if setup is not None:
        runner.run(tpu.copy(str(setup.absolute()), f"{job.name}-setup.sh"))
        runner.run(tpu.ssh(["bash", f"{job.name}-setup.sh"]))
    runner.run(tpu.copy(str(archive), f"{job.name}.tar.gz"))
    code = f"{worker.folder}/code"
    runner.run(tpu.ssh(["rm", "-rf", code]))
    runner.run(tpu.ssh(["mkdir", "-p", code]))
    runner.run(tpu.ssh(["tar", "-xzf", f"{job.name}.tar.gz", "-C", code]))
    if is_workdir_checked:
        runner.run(tpu.ssh(worker.script("check", job.workdir)))
    runner.run(tpu.ssh(worker.script("install")))


def start(tpu: TpuSlice, job: Job, runner: Runner) -> None:
    """Start the job on all workers, in the background; one that runs is left alone."""
    command = job.command(python="../venv/bin/python")
    runner.run(tpu.ssh(WorkerCommands(job.name).script("start", *command)))


def stop(tpu: TpuSlice, name: str, runner: Runner) -> None:
    """Stop the job on all workers and wait until it has."""
    runner.run(tpu.ssh(WorkerCommands(name).script("stop")))


def read_statuses(tpu: TpuSlice, name: str, runner: Runner) -> list[WorkerStatus]:
    """Return the status of every worker that answers.

    Raises:
        CommandFailed: when one does not.
    """
    command = tpu.ssh(WorkerCommands(name).script("status"))
    answer = runner.read(command, in_dry_run="tpu_worker host exited 0", is_quiet=True)
    return parse_statuses(answer)


def watch(
    tpu: TpuSlice, name: str, runner: Runner, *, num_workers: int, poll_seconds: float
) -> Outcome:
    """Show the log of worker 0 until the job ends, is interrupted, or the slice is lost.

    Raises:
        CommandFailed: when neither workers nor gcloud answer for a while.
    """
    runner.note(f"every {poll_seconds:g} s, until all {num_workers} workers have ended:")
    num_lines = failures = 0
    while True:
        try:
            statuses = read_statuses(tpu, name, runner)
            num_lines += _show_log(tpu, name, runner, num_lines)
            outcome = judge(statuses, num_workers)
            failures = 0
        except CommandFailed as failure:
            failures += 1
            outcome = _explain(tpu, runner, failure, failures)
        if outcome is not None:
            return outcome
        runner.sleep(poll_seconds)


def show_tails(tpu: TpuSlice, name: str, runner: Runner) -> None:
    """Show the end of every worker's log, as far as workers can be reached."""
    log = f"{WorkerCommands(name).folder}/log.txt"
    try:
        runner.run(tpu.ssh(["tail", "-n", _TAIL_LINES, log]))
    except CommandFailed as failure:
        runner.note(f"no logs: {failure}")


def _show_log(tpu: TpuSlice, name: str, runner: Runner, num_lines: int) -> int:
    """Print the lines that worker 0 has logged after `num_lines`; return how many they are."""
    command = tpu.ssh(WorkerCommands(name).script("log", str(num_lines)), worker="0")
    text = runner.read(command, in_dry_run="", is_quiet=True)
    print(text, end="", flush=True)
    return text.count("\n")


def _explain(
    tpu: TpuSlice, runner: Runner, failure: CommandFailed, failures: int
) -> Outcome | None:
    """Return the outcome when workers do not answer: lost slice, or None for a bad minute."""
    try:
        if is_lost(tpu, runner):
            return Outcome("slice lost", ExitCode.PREEMPTED)
    except CommandFailed as other:
        runner.note(str(other))
    runner.note(f"no answer ({failures} of {PATIENCE}): {failure}")
    if failures >= PATIENCE:
        raise failure
    return None
