"""SIGTERM before there is anything to save: the process ends at once, with a code of its own.

Importing, waiting for a lock, restoring and compiling take a minute or more of every start, and a
scheduler's notice may come then as well. Whatever is written is written in one step, so ending at
any instant is safe. The training loop puts `StopSignal` in the place of this; among several
processes JAX does as soon as they are joined.

Python runs a handler between two of its own instructions only, and compiling is one long
instruction of the main thread. A thread of its own therefore watches for the signal's number, which
the interpreter writes to a pipe at once.
"""

import os
import signal
import sys
import threading
from typing import Any

_MESSAGE = "tpdiff_jax: stopped by SIGTERM; the same command goes on from what is on the disk\n"


def leave_at_sigterm(code: int) -> None:
    """From now on SIGTERM ends this process at once, unless something else comes to handle it.

    Args:
        code: to end with.
    """

    def leave(*_: Any) -> None:
        sys.stderr.flush()
        os.write(2, _MESSAGE.encode())
        os._exit(code)

    def watch(reading: int) -> None:
        while numbers := os.read(reading, 64):
            if signal.SIGTERM in numbers and signal.getsignal(signal.SIGTERM) is leave:
                leave(signal.SIGTERM, None)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, leave)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=watch, args=(reading,), daemon=True, name="sigterm").start()
    os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    """Let a forked worker end as any process does, and not tell its parent's watch."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
