r"""Train on a Cloud TPU slice: ask for it, install, run on all workers, resume, give it back.

    python -m launch.tpu_vm run --name=tp-base --zone=us-east5-b --accelerator-type=v6e-16 --spot \
      --setup=mount.sh --config=configs/flow.py --workdir=/mnt/runs/tp-base \
      --config.train.num_steps=20000 --config.train.batch_size=64

Actions:
  run      everything: queued resource, this checkout's code and jax[tpu] on all workers, the
           trainer in the background there, its log here. A preempted slice is deleted and asked
           for again; a trainer that stopped with code 3 is started again. Both resume from the
           newest checkpoint. At the end the slice is deleted, unless --keep. Ctrl-C leaves the
           job running; the same command then watches it again.
  status   the state of slice and workers.
  logs     follow the log of worker 0.
  stop     SIGTERM to the trainer on all workers, which saves a checkpoint.
  delete   give the slice back.

The workdir must lie on a file system that all workers share and that outlives them. The trainer
writes to folders, not to gs:// addresses. --setup names a script that mounts one on each worker:
Filestore by `sudo mount -t nfs ADDRESS:/SHARE /mnt/runs`, or a bucket with a hierarchical
namespace by `gcsfuse BUCKET /mnt/runs` (other buckets cannot rename a folder in one step, which is
how a checkpoint is committed). Run `ssh-add` on gcloud's key first where it has a passphrase.

Exit codes: 0 done; 1 a command failed, or --max-restarts was reached; 2 bad input; 130 stopped
watching; others are the trainer's.
"""

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from launch.archive import is_packed, pack_code
from launch.job import Job, job_parser, parse_job
from launch.names import check_polls
from launch.runner import EXIT_FAILED, CommandFailed, Runner, run_program
from launch.tpu_job import (
    Outcome,
    WorkerCommands,
    install,
    read_statuses,
    show_tails,
    start,
    stop,
    watch,
)
from launch.tpu_slice import (
    ABSENT,
    ACTIVE,
    FAILED,
    SUSPENDED,
    TpuSlice,
    count_workers,
    default_runtime,
    is_lost,
    queue_state,
)
from tpdiff_jax.checks import at_home
from tpdiff_jax.command_line import ExitCode

PROGRAM = "launch.tpu_vm"
ROOT = pathlib.Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> int:
    """Do one action; return the exit code."""
    options, rest = _parser().parse_known_args(argv)
    return run_program(PROGRAM, lambda: _act(options, rest))


def _act(options: argparse.Namespace, rest: Sequence[str]) -> int:
    tpu = _read_slice(options)
    check_polls(options.poll_seconds, options.max_restarts)
    runner = Runner(is_dry_run=options.dry_run)
    if options.action == "run":
        job = parse_job(options, rest, tpu.num_devices)
        job.check_workdir_is_absolute()
        if not is_packed(pathlib.PurePath(job.config)):
            raise ValueError(f"--config={job.config} must lie in configs/: no other goes along")
        return run_job(tpu, job, runner, options)
    if rest:
        raise ValueError(f"{' '.join(rest)}: only `run` takes config overrides")
    return _small_action(tpu, runner, options)


def _small_action(tpu: TpuSlice, runner: Runner, options: argparse.Namespace) -> int:
    if options.action == "status":
        runner.run(tpu.describe())
        runner.run(tpu.ssh(WorkerCommands(tpu.name).script("status")))
    elif options.action == "logs":
        log = f"{WorkerCommands(tpu.name).folder}/log.txt"
        runner.run(tpu.ssh(["tail", "-n", "+1", "-F", log], worker="0"))
    elif options.action == "stop":
        stop(tpu, tpu.name, runner)
    else:
        runner.run(tpu.delete())
    return 0


def run_job(tpu: TpuSlice, job: Job, runner: Runner, options: argparse.Namespace) -> int:
    """Run a job to its end over as many slices as it takes; return the trainer's exit code.

    Raises:
        ValueError: when `--setup` is no file.
        CommandFailed: when gcloud or the installation fails; the slice is then left as it is.
    """
    if options.setup is not None and not options.setup.is_file():
        raise ValueError(f"--setup={options.setup} is not a file")
    with tempfile.TemporaryDirectory() as folder:
        archive = pathlib.Path(folder) / "code.tar.gz"
        num_files = pack_code(ROOT, archive)
        runner.note(
            f"{archive}: {num_files} files of this checkout, {archive.stat().st_size} bytes"
        )
        for restart in range(options.max_restarts + 1):
            is_new = ensure_active(
                tpu, runner, is_first=restart == 0, poll_seconds=options.poll_seconds
            )
            try:
                is_installed = restart > 0 and not is_new
                start_or_join(tpu, job, runner, archive, options, is_new, is_installed)
                outcome = watch(
                    tpu,
                    job.name,
                    runner,
                    num_workers=count_workers(tpu, runner),
                    poll_seconds=options.poll_seconds,
                )
            except CommandFailed:
                # A slice that is taken away fails the command that runs on it before it shows.
                runner.sleep(options.poll_seconds)
                if not is_lost(tpu, runner):
                    raise
                outcome = Outcome("slice lost", EXIT_FAILED)
            if outcome.kind == "ended":
                return _finish(tpu, job, runner, outcome.code, keep=options.keep)
            runner.note(f"{outcome.kind}: restart {restart + 1} of {options.max_restarts}")
    runner.note("--max-restarts reached; the slice is left as it is")
    return EXIT_FAILED


def ensure_active(tpu: TpuSlice, runner: Runner, *, is_first: bool, poll_seconds: float) -> bool:
    """Wait until the slice is active, asking for it where needed; return whether it is new.

    Args:
        tpu: the slice.
        runner: how to run commands.
        is_first: whether this launcher has not had the slice before. When it had, and there is
            none any more, someone has deleted it, and it is not asked for again.
        poll_seconds: between questions.

    Raises:
        CommandFailed: when the slice cannot be had.
    """
    may_create, is_new, shown = is_first, False, ""
    while True:
        state = queue_state(tpu, runner, in_dry_run=ACTIVE if is_new else ABSENT)
        if state != shown:
            runner.note(f"the slice is {state}")
            shown = state
        if state == ACTIVE and (is_new or not is_lost(tpu, runner)):
            return is_new
        if state == ABSENT and may_create:
            runner.run(tpu.create())
            may_create, is_new = False, True
        elif state == ABSENT or (state == FAILED and is_new):
            raise CommandFailed(tpu.describe(), EXIT_FAILED, f"the slice is {state}")
        elif state in (ACTIVE, FAILED, SUSPENDED):
            runner.run(tpu.delete())
            may_create, is_new = True, False
        else:
            runner.sleep(poll_seconds)


def start_or_join(
    tpu: TpuSlice,
    job: Job,
    runner: Runner,
    archive: pathlib.Path,
    options: argparse.Namespace,
    is_new: bool,
    is_installed: bool,
) -> None:
    """Start the job on all workers together; where it runs already, leave it alone.

    Raises:
        CommandFailed: when a command fails on a worker.
    """
    if not is_new:
        try:
            statuses = read_statuses(tpu, job.name, runner)
            if statuses and all(status.state == "running" for status in statuses):
                runner.note(f"{job.name} runs already")
                return
            stop(tpu, job.name, runner)
        except CommandFailed as failure:
            runner.note(f"nothing of {job.name} there yet: {failure}")
    if not is_installed:
        install(
            tpu,
            job,
            runner,
            archive=archive,
            setup=options.setup,
            is_workdir_checked=not options.local_workdir,
        )
    start(tpu, job, runner)


def _finish(tpu: TpuSlice, job: Job, runner: Runner, code: int, *, keep: bool) -> int:
    if code != ExitCode.DONE:
        show_tails(tpu, job.name, runner)
    runner.note(f"the trainer ended with code {code}")
    if keep:
        stop(tpu, job.name, runner)  # workers that wait for one that has failed
        runner.note("--keep: the slice stays, and costs, until the action `delete`")
    else:
        runner.run(tpu.delete())
    return code


def _read_slice(options: argparse.Namespace) -> TpuSlice:
    runtime = options.runtime_version or default_runtime(options.accelerator_type)
    return TpuSlice(
        name=options.name,
        zone=options.zone,
        accelerator_type=options.accelerator_type,
        runtime_version=runtime,
        project=options.project,
        is_spot=options.spot,
        create_flags=tuple(options.create_flag),
    )


def _path(text: str) -> pathlib.Path:
    return pathlib.Path(at_home(text))


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(PROGRAM, __doc__)
    parser.add_argument("action", choices=("run", "status", "logs", "stop", "delete"))
    parser.add_argument("--zone", required=True, help="Compute Engine zone")
    parser.add_argument("--project", help="default: gcloud's own")
    parser.add_argument("--accelerator-type", default="v5litepod-8", help="such as v5p-64, v6e-16")
    parser.add_argument("--runtime-version", help="default: the one for JAX on that accelerator")
    parser.add_argument("--spot", action="store_true", help="cheaper, may be preempted")
    parser.add_argument(
        "--create-flag",
        action="append",
        default=[],
        help="further flag of `queued-resources create`, as in --create-flag=--internal-ips",
    )
    parser.add_argument("--setup", type=_path, help="script run first on every worker")
    parser.add_argument(
        "--local-workdir",
        action="store_true",
        help="let the workdir lie on the worker's own disk (one worker; gone with the slice)",
    )
    parser.add_argument("--max-restarts", type=int, default=50, help="over all slices")
    parser.add_argument("--poll-seconds", type=float, default=30.0, help="between questions")
    parser.add_argument("--keep", action="store_true", help="do not delete the slice at the end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
