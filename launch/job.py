"""A training job: its name, where it writes, and the command line that every launcher runs."""

import argparse
import dataclasses
import pathlib
import signal
from collections.abc import Mapping, Sequence

from experiments.grid.overrides import overrides_to_flags, parse_overrides, read_config
from launch.archive import check_inside
from launch.names import check_job_name, check_no_control
from tpdiff_jax.checks import check_no_address
from tpdiff_jax.command_line import ExitCode
from tpdiff_jax.command_line.shipped_configs import config_names

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Started again, the same command would end the same way: someone has to act first.
FINAL_CODES = (
    ExitCode.BAD_INPUT,
    ExitCode.BAD_STEPS,
    ExitCode.SAVE_FAILED,
    ExitCode.TOO_MANY_BAD_CLIPS,
)

# Stopped from outside: the same command goes on. Python needs a moment to start, in which SIGTERM
# ends a trainer as it ends any process; shells and containers say 128 + 15 of that, subprocess -15.
INTERRUPTED_CODES = (ExitCode.PREEMPTED, 128 + signal.SIGTERM, -signal.SIGTERM)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One training run.

    Attributes:
        name: what the cluster calls it: lower-case letters, digits and hyphens, at most 40.
        config: config file, from the repository root, and no link that leaves it.
        workdir: the run's folder, as the machines that train see it.
        overrides: `group.field` -> text on the command line.

    Raises:
        ValueError: for a name that no cluster takes, a workdir that is no folder, or a control
            character anywhere.
    """

    name: str
    config: str
    workdir: str
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_job_name(self.name)
        check_no_control((self.config, self.workdir, *self.overrides, *self.overrides.values()))
        if not self.workdir:
            raise ValueError("--workdir is empty")
        check_no_address("--workdir", self.workdir)
        path = pathlib.PurePosixPath(self.config)
        if path.is_absolute() or ".." in path.parts or not (ROOT / path).is_file():
            raise ValueError(f"--config={self.config} must be a file below the repository root")
        check_inside(ROOT, ROOT / path, f"--config={self.config}")

    def command(self, python: str = "python") -> list[str]:
        """Return the command that starts the run, or resumes it from its newest checkpoint."""
        return [
            *(python, "-m", "tpdiff_jax.main"),
            *(f"--config={self.config}", f"--workdir={self.workdir}"),
            *overrides_to_flags(self.overrides),
        ]

    def check_workdir_is_absolute(self) -> None:
        """Raise ValueError when the workdir depends on where the machine's shell starts."""
        if not self.workdir.startswith("/"):
            raise ValueError(f"--workdir={self.workdir} must be an absolute path on the workers")


def config_file(given: str) -> str:
    """Return the file of a shipped config that --config names, and anything else as it is."""
    return f"configs/{given}.py" if given in config_names() else given


def job_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all launchers share."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--name", required=True, help="what the cluster calls the job")
    parser.add_argument(
        "--config", default="configs/flow.py", help="config file, or the name of a shipped one"
    )
    parser.add_argument(
        "--workdir", help="the run's folder, on a file system that outlives the machines"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )
    return parser


def parse_job(
    options: argparse.Namespace, rest: Sequence[str], num_devices: int | None = None
) -> Job:
    """Return the job of a command line.

    Args:
        options: parsed options of `job_parser`.
        rest: what the parser left: `--config.GROUP.FIELD=VALUE`.
        num_devices: that the job will have; None where it is not known.

    Raises:
        ValueError: for anything that is no such override, one that the config does not take, and
            as `Job`.
    """
    if options.workdir is None:
        raise ValueError("--workdir is required")
    job = Job(
        name=options.name,
        config=config_file(options.config),
        workdir=options.workdir,
        overrides=parse_overrides(rest),
    )
    check_config(job, num_devices)
    return job


def check_config(job: Job, num_devices: int | None = None) -> None:
    """Refuse what the trainer would refuse, before machines are asked for.

    Clips and devices are the workers'; what can be known without them is checked.

    Args:
        job: its config file is run, as by the trainer.
        num_devices: that it will have; None where it is not known.

    Raises:
        ValueError: naming the field, for one that does not exist or a value that is not allowed.
    """
    config = read_config(str(ROOT / job.config), job.overrides)
    import jax  # which no other verb needs

    from tpdiff_jax.experiment.build import check_fields

    jax.config.update("jax_platforms", "cpu")  # accelerators here, if any, are not ours
    check_fields(config, num_devices)
