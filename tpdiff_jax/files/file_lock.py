"""One process at a time: a lock on a file, which the system releases however its holder ends.

On a network file system a machine that vanished may leave its lock behind. Only the kernel of one's
own machine knows for certain that a holder is alive, so the file says whose machine holds it.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import socket
import time
from collections.abc import Iterator
from typing import TextIO

from absl import logging

_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")
_POLL_SECONDS = 1.0


@contextlib.contextmanager
def hold(
    path: pathlib.Path, busy: str, *, patience: float | None = None, is_needed: bool = False
) -> Iterator[None]:
    """Hold the lock of a file.

    Where the file system has no locks, says so in the log and goes on without, unless it is needed.

    Args:
        path: made when missing; stays behind.
        busy: what to say when another process holds it.
        patience: seconds to wait for a holder on another machine; past them it is taken for
            vanished and its lock passed over. None refuses at once, wherever the holder is.
        is_needed: take for held what cannot be locked, as before removing what is another's.

    Raises:
        ValueError: when another process holds it, or may.
    """
    with _locked(path, busy, patience, is_needed):
        yield


def remove_abandoned(folder: pathlib.Path, lock: pathlib.Path) -> None:
    """Remove a folder and its lock, unless a process holds that, or may."""
    with contextlib.suppress(OSError, ValueError):
        with hold(lock, f"{folder} is in use", is_needed=True):
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _locked(path: pathlib.Path, busy: str, patience: float | None, is_needed: bool) -> TextIO:
    deadline, is_waiting = time.monotonic() + (patience or 0.0), False
    while True:
        file = path.open("a+")
        if _try_lock(file, is_needed):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n{_machine()}\n")
            file.flush()
            return file
        file.seek(0)
        holder, _, machine = file.read().partition("\n")
        file.close()
        if patience is None or machine.strip() == _machine():
            raise ValueError(f"{busy}: {holder or 'unknown'}")
        if time.monotonic() >= deadline:
            logging.warning("%s is held by %s for too long: taken for vanished", path, holder)
            path.unlink(missing_ok=True)  # the lock stays with the old file
        elif not is_waiting:
            is_waiting = True
            logging.warning("%s is held by %s: waiting up to %.0f s", path, holder, patience)
        time.sleep(min(_POLL_SECONDS, patience))


def _try_lock(file: TextIO, is_needed: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if is_needed:
            file.close()
            raise ValueError(f"{file.name} cannot be locked: {error}") from error
        logging.warning(
            "%s cannot be locked (%s): a second process is not noticed", file.name, error
        )
    return True


def _machine() -> str:
    """Return what containers of one machine share and no two machines do."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else socket.gethostname()
