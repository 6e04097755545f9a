"""A Cloud TPU slice as gcloud commands, and what gcloud says about it.

A slice is a queued resource with one node of the same name. Source: Google Cloud SDK reference,
`gcloud compute tpus queued-resources create | describe | delete` and `gcloud compute tpus tpu-vm
describe | ssh | scp`; Cloud TPU documentation, "Manage queued resources", "Manage TPU Spot VMs"
and "TPU software versions".
"""

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from launch.names import check_job_name, check_options, check_place
from launch.runner import CommandFailed, Runner

ABSENT = "ABSENT"
ACTIVE = "ACTIVE"
FAILED = "FAILED"
SUSPENDED = "SUSPENDED"  # its machines are gone, by preemption too, and it never comes back
_LOST_NODES = ("PREEMPTED", "TERMINATED", "STOPPED", "STOPPING", "DELETING")

# accelerator type up to its first hyphen -> software version
_RUNTIMES = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}

_TYPE = re.compile(r"([a-z0-9]+)-([1-9][0-9]*)")
_TWO_CORES = ("v4", "v5p")  # of which a type counts the cores, and JAX makes one device of two


def default_runtime(accelerator_type: str) -> str:
    """Return the software version for JAX on this accelerator type.

    Raises:
        ValueError: when there is none for it.
    """
    found = _known_type(accelerator_type)
    if found is None:
        raise ValueError(
            f"--accelerator-type={accelerator_type} must be one of {', '.join(_RUNTIMES)} with a "
            "size, as in v5litepod-16 (later ones: launch.gke)"
        )
    return _RUNTIMES[found[0]]


def _known_type(accelerator_type: str) -> tuple[str, int] | None:
    """Family and size of a type; None of a family that is not known."""
    found = _TYPE.fullmatch(accelerator_type)
    return (found[1], int(found[2])) if found and found[1] in _RUNTIMES else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuSlice:
    """A slice to ask for.

    Attributes:
        name: of the queued resource and of its node.
        zone: Compute Engine zone.
        accelerator_type: such as v5litepod-16.
        runtime_version: software of the machines.
        project: None for gcloud's own default.
        is_spot: cheaper, and may be taken away at any time.
        create_flags: further flags of `queued-resources create`.

    Raises:
        ValueError: for a name that the cloud does not take, or takes for an option.
    """

    name: str
    zone: str
    accelerator_type: str
    runtime_version: str
    project: str | None = None
    is_spot: bool = False
    create_flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_job_name(self.name)
        places = {"--zone": self.zone, "--project": self.project}
        for option, value in (places | {"--runtime-version": self.runtime_version}).items():
            check_place(option, value)
        check_options("--create-flag", self.create_flags)

    @property
    def num_devices(self) -> int | None:
        """Devices that JAX sees; None of a type that is not known."""
        found = _known_type(self.accelerator_type)
        if found is None:
            return None
        family, size = found
        return size // (2 if family in _TWO_CORES else 1)

    def create(self) -> list[str]:
        """Return the command that asks for the slice."""
        return [
            *self._queued("create"),
            f"--node-id={self.name}",
            f"--accelerator-type={self.accelerator_type}",
            f"--runtime-version={self.runtime_version}",
            *(["--spot"] if self.is_spot else []),
            *self.create_flags,
        ]

    def delete(self) -> list[str]:
        """Return the command that gives the slice back, its machines included."""
        return [*self._queued("delete"), "--force", "--quiet"]

    def describe(self) -> list[str]:
        """Return the command that says how the queued resource stands."""
        return [*self._queued("describe"), "--format=json"]

    def describe_node(self) -> list[str]:
        """Return the command that says how the machines stand."""
        return [*self._node("describe", self.name), "--format=json"]

    def copy(self, source: str, target: str) -> list[str]:
        """Return the command that copies a file to the home folder of every worker."""
        return [*self._node("scp", source, f"{self.name}:{target}"), "--worker=all", "--quiet"]

    def ssh(self, remote: Sequence[str], worker: str = "all") -> list[str]:
        """Return the command that runs `remote` on a worker, or on all at once."""
        text = shlex.join(remote)
        flags = [f"--worker={worker}", f"--command={text}", "--quiet"]
        return [*self._node("ssh", self.name), *flags]

    def _queued(self, verb: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "queued-resources", verb, self.name, *self._where()]

    def _node(self, verb: str, *arguments: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "tpu-vm", verb, *arguments, *self._where()]

    def _where(self) -> list[str]:
        project = [f"--project={self.project}"] if self.project else []
        return [f"--zone={self.zone}", *project]


def queue_state(tpu: TpuSlice, runner: Runner, *, in_dry_run: str) -> str:
    """Return the state of the queued resource, `ABSENT` where there is none.

    Args:
        tpu: the slice.
        runner: how to ask.
        in_dry_run: the state that a dry run goes on with.

    Raises:
        CommandFailed: when gcloud fails for another reason.
    """
    answer = {"state": {"state": in_dry_run}}
    found = _describe(runner, tpu.describe(), json.dumps(answer))
    return ABSENT if found is None else str(found.get("state", {}).get("state", "UNKNOWN"))


def is_lost(tpu: TpuSlice, runner: Runner) -> bool:
    """Return whether the slice has been taken away.

    The node shows a preemption before the queued resource does.

    Raises:
        CommandFailed: when gcloud cannot tell.
    """
    if queue_state(tpu, runner, in_dry_run=ACTIVE) != ACTIVE:
        return True
    node = _describe(runner, tpu.describe_node(), "{}")
    return node is None or node.get("state") in _LOST_NODES


def count_workers(tpu: TpuSlice, runner: Runner) -> int:
    """Return the number of machines of an active slice.

    Raises:
        CommandFailed: when gcloud fails.
    """
    node = _describe(runner, tpu.describe_node(), '{"networkEndpoints": [{}]}')
    return len((node or {}).get("networkEndpoints", []))


def _describe(runner: Runner, command: Sequence[str], in_dry_run: str) -> dict[str, Any] | None:
    """Return what gcloud says about a resource, None where there is no such one."""
    try:
        return json.loads(runner.read(command, in_dry_run=in_dry_run, is_quiet=True))
    except CommandFailed as failure:
        if "NOT_FOUND" in failure.stderr:
            return None
        raise
