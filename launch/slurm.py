r"""Submit a training run to a SLURM cluster, which requeues it until it is done.

    python -m launch.slurm --name=tp-base --config=configs/flow.py --workdir=/shared/runs/tp-base \
      --partition=gpu --nodes=2 --gpus-per-node=8 --time=24:00:00 --config.train.batch_size=64

One task runs on each GPU (one on each node without GPUs): jax.distributed reads number and place
of the tasks from SLURM's environment. This checkout, its Python and the workdir must lie on a file
system that all nodes share. --grace-seconds before the time limit the tasks get SIGTERM; the
trainer saves a checkpoint and ends with code 3, and the batch script (launch/slurm_job.sh) puts
the job back into the queue. So it does on a preemption that leaves time for it; where a node
fails or is taken at once, SLURM itself requeues. Code 2, bad input, and all others end the job.

A preemptible partition or quality of service is --partition or --qos. What else a site asks for:
--sbatch-flag=--mem=0, repeatable. `squeue`, `scancel` and the log in the workdir do the rest.

Sources: SLURM documentation, sbatch and srun manual pages, "Preemption"; JAX documentation,
jax.distributed.initialize.

Exit codes: 0 submitted; 1 sbatch failed; 2 bad input.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from launch.job import Job, job_parser, parse_job
from launch.names import check_options, check_place, check_program
from launch.runner import Runner, run_program
from tpdiff_jax.checks import check_at_least

PROGRAM = "launch.slurm"
ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "launch" / "slurm_job.sh"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Allocation:
    """What to ask SLURM for.

    Attributes:
        nodes: number of nodes.
        gpus_per_node: GPUs of each, 0 for none.
        cpus_per_task: cores of each task; None for the site's default.
        time: limit in SLURM's notation, after which the job is requeued.
        grace_seconds: how long before the limit the trainer is told.
        max_restarts: how often the job may be requeued.
        flags: further flags of sbatch.

    Raises:
        ValueError: for a number below its least value.
    """

    nodes: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int | None = None
    time: str | None = None
    grace_seconds: int = 120
    max_restarts: int = 50
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.cpus_per_task is not None:
            check_at_least("--cpus-per-task", self.cpus_per_task, 1)
        least = {"nodes": 1, "gpus_per_node": 0, "grace_seconds": 1, "max_restarts": 0}
        for name, value in least.items():
            check_at_least(f"--{name.replace('_', '-')}", getattr(self, name), value)

    @property
    def num_devices(self) -> int | None:
        """Devices of all tasks; None where flags of sbatch alone could ask for GPUs."""
        return self.nodes * self.gpus_per_node or None

    def options(self) -> list[str]:
        """Return the flags of sbatch."""
        tasks = max(1, self.gpus_per_node)
        optional = {
            "--gpus-per-node": self.gpus_per_node or None,
            "--cpus-per-task": self.cpus_per_task,
            "--time": self.time,
        }
        return [
            *(f"--nodes={self.nodes}", f"--ntasks-per-node={tasks}"),
            *(f"{flag}={value}" for flag, value in optional.items() if value is not None),
            *("--requeue", "--open-mode=append", f"--signal=TERM@{self.grace_seconds}"),
            *self.flags,
        ]


def sbatch_command(job: Job, allocation: Allocation, python: str) -> list[str]:
    """Return the command that submits a job."""
    return [
        *("sbatch", "--parsable", f"--job-name={job.name}", f"--chdir={ROOT}"),
        # A percent sign of the path itself is no field of sbatch.
        f"--output={job.workdir.replace('%', '%%')}/slurm-%j.log",
        *allocation.options(),
        *(str(SCRIPT), str(allocation.max_restarts)),
        *job.command(python),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Submit one job; return the exit code."""
    options, rest = _parser().parse_known_args(argv)
    return run_program(PROGRAM, lambda: _submit(options, rest))


def _submit(options: argparse.Namespace, rest: Sequence[str]) -> int:
    sites = {"--partition": options.partition, "--account": options.account, "--qos": options.qos}
    for flag, value in {**sites, "--time": options.time}.items():
        check_place(flag, value)
    check_options("--sbatch-flag", tuple(options.sbatch_flag))
    check_program("--python", options.python)
    flags = [f"{flag}={value}" for flag, value in sites.items() if value]
    allocation = Allocation(
        nodes=options.nodes,
        gpus_per_node=options.gpus_per_node,
        cpus_per_task=options.cpus_per_task,
        time=options.time,
        grace_seconds=options.grace_seconds,
        max_restarts=options.max_restarts,
        flags=(*flags, *options.sbatch_flag),
    )
    job = parse_job(options, rest, allocation.num_devices)
    job.check_workdir_is_absolute()
    runner = Runner(is_dry_run=options.dry_run)
    # SLURM opens the log before anything of ours runs.
    runner.run(["mkdir", "-p", "--", job.workdir])
    answer = runner.read(sbatch_command(job, allocation, options.python), in_dry_run="JOB")
    job_id = answer.strip().partition(";")[0]  # the cluster follows, where --clusters chose one
    runner.note(f"job {job_id}; its log: {job.workdir}/slurm-{job_id}.log")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(PROGRAM, __doc__)
    parser.add_argument("--partition", help="default: the site's")
    parser.add_argument("--account", help="default: yours")
    parser.add_argument("--qos", help="quality of service")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=0, help="one task runs on each")
    parser.add_argument("--cpus-per-task", type=int)
    parser.add_argument("--time", help="limit such as 24:00:00, after which the job is requeued")
    parser.add_argument(
        "--grace-seconds", type=int, default=120, help="for the checkpoint before the time limit"
    )
    parser.add_argument("--max-restarts", type=int, default=50, help="how often it is requeued")
    parser.add_argument(
        "--sbatch-flag", action="append", default=[], help="further flag of sbatch, repeatable"
    )
    parser.add_argument("--python", default=sys.executable, help="default: this one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
