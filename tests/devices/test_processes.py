"""Joining the processes of a run: flags go together, no cluster means one process."""

import re
from typing import Any

import jax
import pytest

from tpdiff_jax.devices import processes
from tpdiff_jax.devices.processes import ProcessFlags, join_processes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ProcessFlags(num_processes=2), "--coordinator_address and --process_id missing"),
        (ProcessFlags("localhost:1", 2, 2), "--process_id=2 must lie from 0 to --num_processes=2"),
        *(
            (
                ProcessFlags(address, 2, 0),
                f"--coordinator_address={re.escape(address)} must be HOST:PORT, with a port from 1",
            )
            for address in (
                *("localhost", "localhost:", "localhost:abc", ":45399", "localhost:0", ""),
                *("localhost:99999", "localhost:-1", "a b:1", "::1:80", "http://a:80", "a:1:2"),
            )
        ),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(given: ProcessFlags, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_processes(given)


@pytest.mark.parametrize("address", ["localhost:1", "10.0.0.2:65535", "[::1]:8476", "a-b.c:80"])
def test_addresses_of_a_host_and_a_port_are_taken(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[tuple[Any, ...]] = []
    monkeypatch.setattr(processes.jax.distributed, "initialize", lambda *args: joined.append(args))
    join_processes(ProcessFlags(address, 2, 0))
    assert joined == [(address, 2, 0)]


def test_a_busy_port_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("UNKNOWN: Failed to start RPC server\nmore lines")

    monkeypatch.setattr(processes.jax.distributed, "initialize", fail)
    with pytest.raises(ValueError) as failed:
        join_processes(ProcessFlags("localhost:1", 2, 0))
    assert str(failed.value) == (
        "--coordinator_address=localhost:1: UNKNOWN: Failed to start RPC server"
    )


@pytest.mark.parametrize(
    ("variables", "is_joined"),
    [
        ({"SLURM_NTASKS": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"SLURM_NTASKS": "2"}, True),
        ({"SLURM_NTASKS": "1", "OMPI_COMM_WORLD_SIZE": "8"}, True),  # mpirun in a shell of srun
        ({}, True),
    ],
)
def test_the_only_task_of_a_cluster_keeps_all_of_its_devices(
    variables: dict[str, str], is_joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[bool] = []
    monkeypatch.setattr(processes.jax.distributed, "initialize", lambda: joined.append(True))
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    join_processes(ProcessFlags())
    assert bool(joined) == is_joined


def test_without_flags_and_cluster_a_run_has_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_no_cluster() -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes.jax.distributed, "initialize", find_no_cluster)
    join_processes(ProcessFlags())


def test_a_cluster_that_cannot_be_joined_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("process_id and num_processes must be nonnegative")

    monkeypatch.setattr(processes.jax.distributed, "initialize", fail)
    with pytest.raises(ValueError, match="nonnegative"):
        join_processes(ProcessFlags())
