"""A connection to ray: to a cluster that answers, or to a ray of this process."""

import contextlib
import os
import pathlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from absl import logging

import tpdiff_jax
from tpdiff_jax.checks import first_line_of

SECONDS_TO_ANSWER = 10.0
LOCAL_RAY = "local"  # ray's own word for a ray of this process
_STORE_BYTES = 2**28  # no clip passes through ray's object store, only jobs and notes


@contextlib.contextmanager
def connected_ray(address: str, num_cpus: int) -> Iterator[Any]:
    """Connect to a cluster, or to a ray of this process; yield the library.

    A connection that the process already has is used and kept.

    Args:
        address: of the cluster; "" takes RAY_ADDRESS, or else starts a ray in this process.
        num_cpus: that a ray of this process may use.

    Raises:
        ValueError: when ray is missing or cannot be reached.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # ray reports home by default
        import ray
    except ImportError as error:
        raise ValueError(
            f"--engine=ray needs `pip install -r requirements-ray.txt`, or the extra ray: {error}"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS", "") or LOCAL_RAY
    _check_answers(address)
    local: dict[str, Any] = {"num_cpus": max(1, num_cpus), "object_store_memory": _STORE_BYTES}
    at_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        context = ray.init(
            address=address,
            log_to_driver=False,
            # Every node runs this code, not what it may have.
            runtime_env={"py_modules": [str(pathlib.Path(tpdiff_jax.__path__[0]))]},
            **(local if address == LOCAL_RAY else {}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"--engine_address={address}: no ray can be used: {first_line_of(error)}"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, at_sigterm)  # ray's own ends with another code
    logging.info("ray: %s, dashboard %s", address, context.dashboard_url or "none")
    try:
        yield ray
    finally:
        ray.shutdown()  # its tasks end with it


def _check_answers(address: str) -> None:
    """Refuse the HOST:PORT of nobody, for which ray itself would wait for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
        except (OSError, OverflowError) as error:
            raise ValueError(f"--engine_address={address}: no ray answers: {error}") from error
