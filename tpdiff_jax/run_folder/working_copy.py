"""A workdir in a bucket: worked on as a local copy, and sent back while it grows.

    fetch: the run's files, and checkpoints until one is intact
    work:  as on any disk
    send:  every SECONDS_BETWEEN and at the end; what vouches for other files goes last

Object stores replace one object at a time and do nothing else at once, so a kill may leave half of
anything there. It does not count: a checkpoint without its manifest is half sent or half removed,
the leftover that an interrupted save is on a disk; one with files that are not the manifest's is
damaged, and the one before is taken; a shard counts once its note is there, a data set once its
manifest is. What was not sent is made again, bit for bit.
"""

import contextlib
import itertools
import os
import pathlib
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

from absl import logging

from tpdiff_jax.files import file_lock
from tpdiff_jax.files.object_store import ObjectStore
from tpdiff_jax.run_folder.checkpoint_manifest import (
    CHECKPOINT_MANIFEST_FILE,
    CheckpointError,
    verify,
)

SECONDS_BETWEEN = 30.0
"""Between two sendings, and between two signs of life."""

OWNER_OBJECT = ".owner"
OWNING_MODES = ("train", "prepare")  # of which one at a time may work on an address
_LIVES = 3.5  # periods without a sign of life after which an owner is taken for dead
_TRIES, _PAUSE = 4, 2.0  # of the last sending, in seconds, doubled each time
_CHECKPOINT = re.compile(r"checkpoints/(0|[1-9][0-9]{0,17})/.+")
_ONE_CHECKPOINT, _NO_CHECKPOINT = ("sample", "evaluate", "export"), ("plan", "advise", "prepare")
_COPIES, _LOCK = "tpdiff_jax-", ".lock"
_FIRST = ("config.json", "prepare.json")  # what a folder is, before anything in it


class SendError(Exception):
    """Results could not be brought to their address; they are still on this machine."""


class _State(NamedTuple):
    """What tells that a file has changed."""

    size: int
    modified: int
    inode: int


@contextlib.contextmanager
def working_copy(address: str, mode: str, step: int | None = None) -> Iterator[pathlib.Path]:
    """Fetch a workdir, yield the local folder to work in, and send back what has changed.

    Args:
        address: of the workdir, as in gs://bucket/run.
        mode: of the command. train and prepare keep others of their kind out; what another mode
            changes is sent too, but only new files while one of these is at work.
        step: the checkpoint that sample, evaluate or export reads; None is the newest intact one.

    Raises:
        ValueError: when another run works there.
        SendError: when the results could not be sent.
    """
    store = ObjectStore(address)
    with _local_folder(address.rstrip("/").rpartition("/")[2]) as folder:  # the run's name
        logging.info("%s is worked on in %s", address, folder)
        with _owned(store) if mode in OWNING_MODES else contextlib.nullcontext():
            copy = Copy(store, folder, is_owner=mode in OWNING_MODES)
            copy.fetch(mode, step)
            try:
                with _repeated(copy.try_to_send):
                    yield folder
            finally:
                copy.send_or_raise()


class Copy:
    """A local folder and the objects that it is a copy of."""

    def __init__(self, store: ObjectStore, folder: pathlib.Path, *, is_owner: bool) -> None:
        """Start with an empty folder.

        Args:
            store: the address.
            folder: on this machine.
            is_owner: whether this side decides what is there: may remove, and replace always.
        """
        self._store, self._folder, self._is_owner = store, folder, is_owner
        self._sent: dict[str, _State] = {}
        self._leftovers: list[str] = []  # objects there, of checkpoints without a manifest

    def fetch(self, mode: str, step: int | None) -> None:
        """Fetch what a mode needs; where it needs one checkpoint, until one is intact."""
        names = [n for n in self._store.sizes() if not _is_hidden(n) and "tensorboard/" not in n]
        for name in names:
            if not _CHECKPOINT.fullmatch(name):
                self._fetch(name)
        if mode in _NO_CHECKPOINT:
            return
        of_step: dict[str, list[str]] = {}
        for name in names:
            if step_of := _CHECKPOINT.fullmatch(name):
                of_step.setdefault(step_of[1], []).append(name)
        for half in [s for s in of_step if _manifest_of(s) not in of_step[s]]:
            self._leftovers += of_step.pop(half)
            where = f"{self._store.address}/checkpoints/{half}"
            logging.info("%s was cut off while it was sent or removed: left out", where)
        for found in sorted(of_step, key=int, reverse=True):
            if mode in _ONE_CHECKPOINT and step not in (None, int(found)):
                continue
            for name in of_step[found]:
                with contextlib.suppress(FileNotFoundError):  # removed in this moment
                    self._fetch(name)
            if mode in _ONE_CHECKPOINT and self._is_intact(found):
                break

    def _fetch(self, name: str) -> None:
        path = self._folder / name
        self._store.fetch_to(name, path)
        self._sent[name] = _state(path)

    def _is_intact(self, step: str) -> bool:
        try:
            verify(self._folder / "checkpoints" / step)
        except CheckpointError:
            return False
        return True

    def send(self) -> None:
        """Send what is new or has changed; remove the checkpoints that were removed here.

        What is left there of a checkpoint goes once another one is whole here.
        """
        states = dict(self._finished())
        if self._is_owner and any(_is_manifest(name) for name in states):
            while self._leftovers:  # before a checkpoint of that step may come with its own files
                self._store.remove(self._leftovers[-1])
                self._leftovers.pop()
        changed = [name for name, state in states.items() if self._sent.get(name) != state]
        if not self._is_owner and self._store.read(OWNER_OBJECT) is not None:
            theirs = [name for name in changed if name in self._sent]
            if theirs:
                logging.warning("left to the run at work there: %s", ", ".join(sorted(theirs)))
            changed = [name for name in changed if name not in self._sent]
        for name in sorted(changed, key=lambda name: _order(name, states[name].modified)):
            with contextlib.suppress(FileNotFoundError):  # a checkpoint that was just removed
                self._store.send(self._folder / name, name)
                self._sent[name] = states[name]
        if self._is_owner:
            gone = [n for n in self._sent.keys() - states.keys() if _CHECKPOINT.fullmatch(n)]
            for name in sorted(
                gone, key=lambda name: _order(name, 0), reverse=True
            ):  # its manifest first
                self._store.remove(name)
                del self._sent[name]

    def try_to_send(self) -> None:
        """Send; what fails is said and tried again next time."""
        try:
            self.send()
        except Exception as error:  # every library has its own
            logging.warning("%s cannot be reached, the run goes on: %r", self._store.address, error)

    def send_or_raise(self) -> None:
        """Send, in several tries."""
        for attempt in itertools.count(1):
            try:
                return self.send()
            except Exception as error:
                if attempt == _TRIES:
                    raise SendError(
                        f"{self._store.address} cannot be reached ({error!r}); what is not there "
                        f"is in {self._folder}"
                    ) from error
                time.sleep(_PAUSE * 2**attempt)

    def _finished(self) -> Iterator[tuple[str, _State]]:
        """Yield all files that a kill now would leave to the next start.

        Checkpoints come first: a line of the log that is older than one of them is then seen too.
        """
        checkpoints = self._folder / "checkpoints"
        for place in (checkpoints, self._folder):
            for where, folders, names in os.walk(place):  # says nothing of folders that go away
                if place != checkpoints and "checkpoints" in folders:
                    folders.remove("checkpoints")
                for path in (pathlib.Path(where, name) for name in names):
                    name = path.relative_to(self._folder).as_posix()
                    if not _is_hidden(name) and self._is_published(name):
                        with contextlib.suppress(FileNotFoundError):
                            yield name, _state(path)

    def _is_published(self, name: str) -> bool:
        """Whether a file is of a checkpoint that has its final name, or of none."""
        if not name.startswith("checkpoints/"):
            return True
        step = _CHECKPOINT.fullmatch(name)
        return step is not None and (self._folder / _manifest_of(step[1])).is_file()


def _order(name: str, modified: int) -> tuple[bool, int, int, int, str]:
    """Sort what vouches for others behind them; a log before the checkpoint that follows it."""
    path = pathlib.PurePosixPath(name)
    rank = int(path.suffix == ".json")  # notes, lists of facts, indices of weights
    rank = 2 if path.name == CHECKPOINT_MANIFEST_FILE else -1 if name in _FIRST else rank
    return name.startswith("checkpoints/"), rank, modified, -len(path.parts), name


def _is_manifest(name: str) -> bool:
    step = _CHECKPOINT.fullmatch(name)
    return step is not None and name == _manifest_of(step[1])


def _manifest_of(step: str) -> str:
    return f"checkpoints/{step}/{CHECKPOINT_MANIFEST_FILE}"


def _is_hidden(name: str) -> bool:
    """Whether a name is not for the other side; one that leads out of the folder is not either."""
    return any(not part or part.startswith(".") for part in name.split("/"))


def _state(path: pathlib.Path) -> _State:
    found = path.stat()
    return _State(found.st_size, found.st_mtime_ns, found.st_ino)


@contextlib.contextmanager
def _repeated(action: Callable[[], None]) -> Iterator[None]:
    """Repeat something in a thread of its own until the end."""
    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.wait(SECONDS_BETWEEN):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextlib.contextmanager
def _owned(store: ObjectStore) -> Iterator[None]:
    """Keep a sign of life at the address, once nobody else's changes there any more."""
    me, beats = uuid.uuid4().hex, itertools.count()

    def beat() -> None:
        try:
            store.write(OWNER_OBJECT, f"{me} {next(beats)}".encode())
        except Exception as error:
            logging.warning("%s cannot be reached: %r", store.address, error)

    busy = f"--workdir={store.address} is being worked on by another process"
    if (found := store.read(OWNER_OBJECT)) is not None:
        logging.warning("%s: waiting whether its owner lives", store.address)
        time.sleep(_LIVES * SECONDS_BETWEEN)
        if store.read(OWNER_OBJECT) not in (None, found):
            raise ValueError(busy)
    store.write(OWNER_OBJECT, me.encode())
    time.sleep(min(1.0, SECONDS_BETWEEN))
    if store.read(OWNER_OBJECT) != me.encode():  # somebody else started in the same moment
        raise ValueError(busy)
    try:
        with _repeated(beat):
            yield
    finally:
        with contextlib.suppress(Exception):  # else the next one waits for a sign of life
            store.remove(OWNER_OBJECT)


@contextlib.contextmanager
def _local_folder(name: str) -> Iterator[pathlib.Path]:
    """Make a folder, and remove it at the end unless it holds what could not be sent.

    Those of processes that were killed go first: nobody holds their locks.
    """
    for lock in pathlib.Path(tempfile.gettempdir()).glob(f"{_COPIES}*/{_LOCK}"):
        with contextlib.suppress(OSError, ValueError), file_lock.hold(lock, "in use"):
            shutil.rmtree(lock.parent, ignore_errors=True)
    base = pathlib.Path(tempfile.mkdtemp(prefix=_COPIES))
    with file_lock.hold(base / _LOCK, f"{base} is in use"):
        (base / name).mkdir()
        try:
            yield base / name
        except SendError:
            (base / _LOCK).unlink()
            raise
        except BaseException:
            shutil.rmtree(base, ignore_errors=True)
            raise
    shutil.rmtree(base, ignore_errors=True)
