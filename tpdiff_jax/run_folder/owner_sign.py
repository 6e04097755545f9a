"""Who works at an address in a bucket: its owner changes an object there for as long as it lives.

Object stores have no locks. A sign that stays the same for `LIVES` periods is a dead owner's.
"""

import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from absl import logging

from tpdiff_jax.files.object_store import ObjectStore
from tpdiff_jax.run_folder.object_names import OWNER_OBJECT

SECONDS_BETWEEN = 30.0
"""Between two signs of life, and between two sendings."""
LIVES = 3.5
"""Periods without a sign of life after which an owner is taken for dead."""


class OwnerWatch:
    """What one process has seen of an address's owner."""

    def __init__(self, store: ObjectStore) -> None:
        """Know nothing yet."""
        self._store = store
        self._sign: bytes | None = None
        self._since = 0.0
        self._has_moved = False

    def look(self) -> None:
        """Take note of the sign, so that a later look tells whether it has moved."""
        sign = self._store.read(OWNER_OBJECT)
        if sign != self._sign:
            self._has_moved = self._sign is not None
            self._sign, self._since = sign, time.monotonic()

    def is_alive(self) -> bool:
        """Whether an owner is at work; one that was never seen to move is waited for."""
        while True:
            self.look()
            left = self._since + LIVES * SECONDS_BETWEEN - time.monotonic()
            if self._sign is None or left <= 0:
                return False
            if self._has_moved:
                return True
            logging.info("%s: waiting whether its owner lives", self._store.address)
            time.sleep(min(left, SECONDS_BETWEEN))


@contextlib.contextmanager
def owned(store: ObjectStore) -> Iterator[None]:
    """Keep a sign of life at the address, once nobody else's changes there any more.

    Raises:
        ValueError: when another process works there.
    """
    me, beats = uuid.uuid4().hex, itertools.count()

    def beat() -> None:
        try:
            store.write(OWNER_OBJECT, f"{me} {next(beats)}".encode())
        except Exception as error:
            logging.warning("%s cannot be reached: %r", store.address, error)

    busy = f"--workdir={store.address} is being worked on by another process"
    if OwnerWatch(store).is_alive():
        raise ValueError(busy)
    store.write(OWNER_OBJECT, me.encode())
    time.sleep(min(1.0, SECONDS_BETWEEN))
    if store.read(OWNER_OBJECT) != me.encode():  # somebody else started in the same moment
        raise ValueError(busy)
    try:
        with repeated(beat):
            yield
    finally:
        with contextlib.suppress(Exception):  # else the next one waits for a sign of life
            store.remove(OWNER_OBJECT)


@contextlib.contextmanager
def repeated(action: Callable[[], None]) -> Iterator[None]:
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
