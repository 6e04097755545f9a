"""Joining the processes of a run: flags go together, no cluster means one process."""

import pytest

from tpdiff_jax.devices import processes
from tpdiff_jax.devices.processes import ProcessFlags, join_processes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ProcessFlags(num_processes=2), "--coordinator_address and --process_id missing"),
        (ProcessFlags("localhost:1", 2, 2), "--process_id=2 must lie from 0 to --num_processes=2"),
        (ProcessFlags("localhost", 2, 0), "--coordinator_address=localhost must be HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(given: ProcessFlags, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_processes(given)


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
