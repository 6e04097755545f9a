"""A workdir in a bucket: worked on as a local copy, and sent back while it grows.

    fetch: the run's files, and checkpoints until one is intact
    work:  as on any disk
    send:  every `owner_sign.SECONDS_BETWEEN` and at the end; what vouches for other files goes last

Object stores replace one object at a time and do nothing else at once, so a kill may leave half of
anything there. It does not count: a checkpoint without its manifest is half sent or half removed,
the leftover that an interrupted save is on a disk; one with files that are not the manifest's is
damaged, and the one before is taken; a shard counts once its note is there, a data set once its
manifest is. What was not sent is made again, bit for bit.

However slow the connection, the newest whole checkpoint stays there until a newer one is whole:
checkpoints are sent from links of their own, which the run's pruning does not reach.
"""

import contextlib
import itertools
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from absl import logging

from tpdiff_jax.files.durable import DISK_ERRORS
from tpdiff_jax.files.object_store import ObjectStore
from tpdiff_jax.run_folder.checkpoint_folder import list_steps
from tpdiff_jax.run_folder.checkpoint_manifest import CheckpointError, verify
from tpdiff_jax.run_folder.local_copy import SendError, keep_from_cleaners, local_copy
from tpdiff_jax.run_folder.object_names import (
    LINKS,
    TENSORBOARD,
    by_step,
    is_hidden,
    manifest_of,
    sending_order,
    step_of,
)
from tpdiff_jax.run_folder.owner_sign import OwnerWatch, owned, repeated

OWNING_MODES = ("train", "prepare")  # of which one at a time may work on an address
_TRIES, _PAUSE = 4, 2.0  # of the last sending, in seconds, doubled each time
_ONE_CHECKPOINT, _NO_CHECKPOINT = ("sample", "evaluate", "export"), ("plan", "advise", "prepare")


class UnreachableError(SendError):
    """Nothing could be read from or written to an address, and nothing was done."""


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
        ValueError: when another run works there, the bucket does not exist or refuses the login, or
            the step is not there.
        SendError: when the address, or at the end the results, could not be reached or sent.
    """
    store = ObjectStore(address)
    with local_copy(address.rstrip("/").rpartition("/")[2]) as local:  # the run's name
        logging.info("%s is worked on in %s", address, local.folder)
        with contextlib.ExitStack() as signs:
            copy = Copy(store, local.folder, is_owner=mode in OWNING_MODES)
            with _told(address):
                if mode in OWNING_MODES:
                    signs.enter_context(owned(store))
                copy.fetch(mode, step)
            local.is_needed = True
            try:
                with repeated(copy.try_to_send):
                    yield local.folder
            finally:
                copy.send_or_raise()
                local.is_needed = False


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn what libraries raise before anything was done into one line."""
    try:
        yield
    except (ValueError, SendError):
        raise
    except FileNotFoundError as error:
        raise ValueError(f"--workdir={address}: there is no such bucket ({error})") from error
    except PermissionError as error:
        raise ValueError(f"--workdir={address}: the login is refused ({error})") from error
    except Exception as error:  # every library has its own
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise UnreachableError(f"--workdir={address} cannot be reached: {error!r}") from error


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
        self._owner = OwnerWatch(store)

    def fetch(self, mode: str, step: int | None) -> None:
        """Fetch what a mode needs; where it needs one checkpoint, until one is intact.

        Raises:
            ValueError: where a mode needs a step that is not there.
        """
        if not self._is_owner:
            self._owner.look()
        names = self._names()
        for name in names:
            if step_of(name) is None:
                self._fetch(name)
        if mode in _NO_CHECKPOINT:
            return
        whole, halves = by_step(names)
        for half, of_half in halves.items():
            where = f"{self._store.address}/checkpoints/{half}"
            if mode == "doctor":  # which may be asked to trust it
                self._fetch_all(of_half)
                continue
            self._leftovers += of_half
            say = logging.info if whole else logging.warning
            say("%s was cut off while it was sent or removed: left out", where)
        if mode not in _ONE_CHECKPOINT:
            for of_whole in whole.values():
                self._fetch_all(of_whole)
            return
        if step is None:
            self._fetch_newest(whole)
        elif step in whole:
            self._fetch_all(whole[step])
        elif whole:
            raise ValueError(f"no checkpoint of step {step} in {self._store.address}: {[*whole]}")

    def _fetch_newest(self, whole: dict[int, list[str]]) -> None:
        """Fetch checkpoints, the newest first, until one is intact.

        A trainer may remove one while it is read; it has then sent a newer one.
        """
        tried: set[int] = set()
        while left := whole.keys() - tried:
            tried.add(step := max(left))
            self._fetch_all(whole[step])
            if self._is_intact(step):
                return
            newer, _ = by_step(self._names())
            whole = whole | {s: names for s, names in newer.items() if s > step}

    def _names(self) -> list[str]:
        return [n for n in self._store.sizes() if not is_hidden(n) and TENSORBOARD not in n]

    def _fetch_all(self, names: list[str]) -> None:
        for name in names:
            self._fetch(name)

    def _fetch(self, name: str) -> None:
        path = self._folder / name
        try:
            self._store.fetch_to(name, path)
        except FileNotFoundError:  # removed in this moment
            return
        self._sent[name] = _state(path)

    def _is_intact(self, step: int) -> bool:
        try:
            verify(self._folder / "checkpoints" / f"{step}")
        except CheckpointError:
            return False
        return True

    def send(self, *, is_last: bool = False) -> None:
        """Send what is new or has changed; remove what was removed here and nobody misses.

        A checkpoint goes there once a newer one is whole there, what is left of a half one once
        another is, other files at the end.

        Args:
            is_last: whether the work is done.

        Raises:
            FileNotFoundError: when the local folder is gone.
        """
        if not self._folder.is_dir():
            raise FileNotFoundError(f"{self._folder} is gone")
        keep_from_cleaners(self._folder)
        links = self._folder / LINKS
        try:
            checkpoints = self._linked_checkpoints(links)
            files = dict(self._walk(self._folder))
            self._send_all(files, checkpoints)
            if self._is_owner:
                self._remove_old_checkpoints(checkpoints)
            if is_last:
                self._remove_gone(files)
        finally:
            shutil.rmtree(links, ignore_errors=True)

    def _send_all(
        self, files: Mapping[str, _State], checkpoints: Mapping[int, Mapping[str, _State]]
    ) -> None:
        """Send files, then checkpoints, the newest first, and large logs of pictures last."""
        if checkpoints and self._is_owner:
            while self._leftovers:  # before a checkpoint of that step may come with its own files
                self._store.remove(self._leftovers[-1])
                self._leftovers.pop()
        changed = [name for name, state in files.items() if self._sent.get(name) != state]
        known = [name for name in changed if name in self._sent]
        if known and not self._is_owner and self._owner.is_alive():
            logging.warning("left to the run at work there: %s", ", ".join(sorted(known)))
            changed = [name for name in changed if name not in self._sent]
        changed.sort(key=lambda name: sending_order(name, files[name].modified))
        late = [name for name in changed if name.startswith(TENSORBOARD)]
        for name in (name for name in changed if not name.startswith(TENSORBOARD)):
            self._send(self._folder / name, name, files[name])
        newest = max(checkpoints, default=None)
        for step in sorted(checkpoints, reverse=True):
            states = checkpoints[step]
            if step != newest and not (self._folder / manifest_of(step)).exists():
                continue  # a newer one has come in the meantime
            for name in sorted(states, key=lambda name: sending_order(name, 0)):
                if self._sent.get(name) != states[name]:
                    self._send(self._folder / LINKS / name, name, states[name])
        for name in late:
            self._send(self._folder / name, name, files[name])

    def _send(self, path: pathlib.Path, name: str, state: _State) -> None:
        may_grow = path.suffix == ".jsonl" or name.startswith(TENSORBOARD)
        try:
            self._store.send(path, name, may_grow=may_grow)
        except FileNotFoundError:
            if path.exists():  # then it is the bucket that is not there
                raise
            return
        self._sent[name] = state

    def _remove_old_checkpoints(self, checkpoints: Mapping[int, Mapping[str, _State]]) -> None:
        """Remove checkpoints that are gone here and older than one that is whole there."""
        here = {name for states in checkpoints.values() for name in states}
        newest, gone = max(checkpoints, default=-1), []
        for name in self._sent.keys() - here:
            if (step := step_of(name)) is not None and step <= newest:
                gone.append(name)
        self._remove(gone)

    def _remove_gone(self, files: Mapping[str, _State]) -> None:
        """Remove the files that this side has fetched or sent, and removed since."""
        gone = [n for n in self._sent if not n.startswith("checkpoints/") and n not in files]
        if not gone or (not self._is_owner and self._owner.is_alive()):
            return
        self._remove(gone)

    def _remove(self, names: list[str]) -> None:
        """Remove objects in the opposite order of sending: what vouches for others first."""
        for name in sorted(names, key=lambda name: sending_order(name, 0), reverse=True):
            self._store.remove(name)
            del self._sent[name]

    def try_to_send(self) -> None:
        """Send; what fails is said and tried again next time."""
        try:
            self.send()
        except Exception as error:  # every library has its own
            logging.warning(
                "results could not be sent to %s, the run goes on: %r", self._store.address, error
            )

    def send_or_raise(self) -> None:
        """Send, in several tries, and remove what was removed."""
        for attempt in itertools.count(1):
            try:
                return self.send(is_last=True)
            except Exception as error:
                if attempt == _TRIES:
                    raise SendError(
                        f"results could not be sent to {self._store.address} ({error!r}); what is "
                        f"not there is in {self._folder}"
                    ) from error
                time.sleep(_PAUSE * 2**attempt)

    def _linked_checkpoints(self, links: pathlib.Path) -> dict[int, dict[str, _State]]:
        """The published checkpoints, with links to those files that have to be sent.

        They are listed before the other files: a line of the log that is older than one of them is
        then seen too. One that is removed meanwhile is left out: its folder's name changes first.
        """
        found = {}
        for step in list_steps(self._folder / "checkpoints"):
            manifest = self._folder / manifest_of(step)
            try:
                manifest.stat()
                states = {}
                for name, state in self._walk(self._folder / "checkpoints" / f"{step}"):
                    states[name] = state
                    if self._sent.get(name) != state:
                        _link(self._folder / name, links / name)
                manifest.stat()
            except FileNotFoundError:
                continue
            found[step] = states
        return found

    def _walk(self, place: pathlib.Path) -> Iterator[tuple[str, _State]]:
        """Files of a folder with their states; of the run's own all but checkpoints."""
        for where, folders, names in os.walk(place):  # says nothing of folders that go away
            if pathlib.Path(where) == self._folder:
                folders[:] = [f for f in folders if f not in ("checkpoints", LINKS)]
            for path in (pathlib.Path(where, name) for name in names):
                name = path.relative_to(self._folder).as_posix()
                if not is_hidden(name):
                    with contextlib.suppress(FileNotFoundError):
                        yield name, _state(path)


def _link(path: pathlib.Path, link: pathlib.Path) -> None:
    """Give a file a second name, or where there are no links a copy."""
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, link)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, link)


def _state(path: pathlib.Path) -> _State:
    found = path.stat()
    return _State(found.st_size, found.st_mtime_ns, found.st_ino)
