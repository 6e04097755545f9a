"""Several processes of one run: found in the cluster's environment, or told by flags.

Must run before anything asks for devices. Afterwards every process sees all devices, and the
arrays of a run are global.
"""

import os
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

_NO_CLUSTER = "coordinator_address should be defined"
_TASK_COUNTS = ("OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS")  # in the order that JAX looks
_ADDRESS = re.compile(r"(\[[^\s\[\]]+\]|[^\s:/\[\]]+):(\d{1,5})", re.ASCII)
_LAST_PORT = 65535


class ProcessFlags(NamedTuple):
    """The command line's say: all of them, or none."""

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def join_processes(given: ProcessFlags) -> None:
    """Join the other processes of the run, if there are any.

    Without flags, JAX looks for a cluster: a TPU slice (VMs or GKE), SLURM, Open MPI. Where it
    finds none, or the run is the cluster's only task, the run has one process with all devices.

    Raises:
        ValueError: for some of the flags without the others, a number or an address out of range,
            or an address at which the processes cannot meet.
    """
    missing = [f"--{name}" for name, value in given._asdict().items() if value is None]
    if 0 < len(missing) < len(given):
        raise ValueError(
            f"{' and '.join(missing)} missing: --coordinator_address, --num_processes and "
            "--process_id go together"
        )
    if not missing:
        _check_range(given)
        _join(given)
    elif not _is_only_task():
        _join_cluster()
    if jax.process_count() > 1:
        logging.info("process %d of %d", jax.process_index(), jax.process_count())


def _check_range(given: ProcessFlags) -> None:
    num_processes, process_id = given.num_processes or 0, given.process_id or 0
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id={process_id} must lie from 0 to --num_processes={num_processes} - 1"
        )
    found = _ADDRESS.fullmatch(given.coordinator_address or "")  # others end JAX in a crash
    if not found or not 1 <= int(found[2]) <= _LAST_PORT:
        raise ValueError(
            f"--coordinator_address={given.coordinator_address} must be HOST:PORT, with a port "
            f"from 1 to {_LAST_PORT}"
        )


def _join(given: ProcessFlags) -> None:
    try:
        jax.distributed.initialize(*given)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--coordinator_address={given.coordinator_address}: {reason}") from error


def _is_only_task() -> bool:
    """Whether the cluster has one task here; JAX would give it the first GPU and no other."""
    counts = [os.environ[name] for name in _TASK_COUNTS if name in os.environ]
    return counts[:1] == ["1"]


def _join_cluster() -> None:
    try:
        jax.distributed.initialize()
    except ValueError as error:
        if _NO_CLUSTER not in str(error):
            raise


def wait_for_others(name: str) -> None:
    """Return when every process has come here; at once when there is one."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def is_true_at_main(value: bool) -> bool:
    """Return what process 0 says, in every process."""
    return bool(numbers_of_main(np.bool_(value)))


def numbers_of_main(numbers: np.ndarray | np.generic) -> Any:
    """Return the numbers of process 0, in every process.

    Args:
        numbers: this process's, of a shape and type that all share.
    """
    if jax.process_count() == 1:
        return numbers
    return multihost_utils.broadcast_one_to_all(numbers)
