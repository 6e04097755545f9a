"""SIGTERM or Ctrl-C before there is anything to save: the process ends at once, with its code.

Importing, waiting for a lock, restoring and compiling take a minute or more of every start, and a
scheduler's notice may come then as well. Whatever is written is written in one step, so ending at
any instant is safe. The training loop puts `StopSignal` in the place of this; among several
processes JAX does as soon as they are joined.

Python runs a handler between two of its own instructions only, and compiling is one long
instruction of the main thread. A thread of its own therefore watches for the signal's number, which
the interpreter writes to a pipe at once. An exception in a handler can also be lost: one that comes
up in a callback of a library, as jax has one in every garbage collection, is printed and forgotten.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_MESSAGE = "tpdiff_jax: stopped by SIGTERM; the same command goes on from what is on the disk"


def leave_at_sigterm(code: int) -> None:
    """From now on SIGTERM ends this process at once, unless something else comes to handle it.

    Args:
        code: to end with.
    """

    def watch(reading: int) -> None:
        while numbers := os.read(reading, 64):
            for number in numbers:
                if isinstance(handler := signal.getsignal(number), _Leave):
                    handler()

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, _Leave(code, lambda: _MESSAGE))
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=watch, args=(reading,), daemon=True, name="sigterm").start()
    os.register_at_fork(after_in_child=_forget)


def leave_at_ctrl_c(code: int, line: str) -> None:
    """From now on Ctrl-C ends this process at once, where it is not ignored.

    Args:
        code: to end with.
        line: for the user.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _Leave(code, lambda: line))


def raise_at_ctrl_c() -> None:
    """From now on Ctrl-C is Python's KeyboardInterrupt again: there is something to tidy up."""
    if isinstance(signal.getsignal(signal.SIGINT), _Leave):
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def leaving_at_ctrl_c(code: int, say: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C end this process at once, while nothing else comes to handle it.

    Args:
        code: to end with.
        say: returns one line for the user; called then.
    """
    previous = signal.signal(signal.SIGINT, _Leave(code, say))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class _Leave:
    """A handler that ends the process, from whichever thread sees the signal first."""

    def __init__(self, code: int, say: Callable[[], str]) -> None:
        self._code, self._say = code, say
        self._is_leaving = threading.Lock()

    def __call__(self, *_: Any) -> None:
        if not self._is_leaving.acquire(blocking=False):
            return  # the other thread is on its way out: what is to be said is said once
        sys.stderr.flush()
        os.write(2, f"{self._say()}\n".encode())
        os._exit(self._code)


def _forget() -> None:
    """Let a forked worker end as any process does, and not tell its parent's watch."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise_at_ctrl_c()
