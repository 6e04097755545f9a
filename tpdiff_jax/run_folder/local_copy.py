"""The folder on this machine in which a workdir from a bucket is worked on."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator

from absl import logging

from tpdiff_jax.files import file_lock

_COPIES, _LOCK = "tpdiff_jax-", ".lock"
_FRESH = 86_400.0  # seconds: cleaners of temporary folders take what nobody touched for ten days


class SendError(Exception):
    """Results could not be brought to their address; they are still on this machine."""


@dataclasses.dataclass
class LocalCopy:
    """A folder, and whether it holds what is nowhere else."""

    folder: pathlib.Path
    is_needed: bool = False


@contextlib.contextmanager
def local_copy(name: str) -> Iterator[LocalCopy]:
    """Make a folder, and remove it at the end unless it holds what could not be sent.

    Those of processes that were killed go first: nobody holds their locks.
    """
    for lock in pathlib.Path(tempfile.gettempdir()).glob(f"{_COPIES}*/{_LOCK}"):
        file_lock.remove_abandoned(lock.parent, lock)
    new = pathlib.Path(tempfile.mkdtemp(prefix=f".{_COPIES}"))  # which none of these finds
    with file_lock.hold(new / _LOCK, f"{new} is in use"):
        base = new.rename(new.with_name(new.name.removeprefix(".")))
        local = LocalCopy(base / name)
        local.folder.mkdir()
        try:
            yield local
        except SendError:  # which says so
            raise
        except BaseException:
            if local.is_needed:
                logging.warning("what was not sent is in %s", local.folder)
            raise
        finally:
            if local.is_needed:
                (base / _LOCK).unlink(missing_ok=True)
            else:
                shutil.rmtree(base, ignore_errors=True)


def keep_from_cleaners(folder: pathlib.Path) -> None:
    """Touch the files of a folder that nothing has touched for a day; what they say stays.

    A run may work longer on its copy than a system keeps files in its folder for temporary ones,
    and what is missing here at the end is removed in the bucket.

    Args:
        folder: with all that lies in it.
    """
    now = time.time()
    for where, _, names in os.walk(folder):
        for path in (pathlib.Path(where, name) for name in names):
            with contextlib.suppress(OSError):  # removed in this moment
                found = path.stat()
                if now - max(found.st_atime, found.st_mtime, found.st_ctime) > _FRESH:
                    os.utime(path, ns=(int(now * 1e9), found.st_mtime_ns))
