"""SIGTERM or one Ctrl-C, a wish to stop, as a question that the loop asks after every step.

One process sets a flag. Of several, any one may get the signal, and all must leave after the same
step, or the others would wait for it forever: JAX's coordination service agrees on the step. A
second Ctrl-C leaves at once: whatever is on the disk was written in one step.
"""

import os
import signal

import jax
from jax.experimental import multihost_utils

from tpdiff_jax.command_line.exit_codes import ExitCode

_FIRST = b"\ntpdiff_jax: stopping once this step is saved; Ctrl-C again leaves at once\n"
_SECOND = b"\ntpdiff_jax: left at once; the same command goes on from what is on the disk\n"


class StopSignal:
    """Set by SIGTERM or Ctrl-C while used as a context manager.

    Attributes:
        is_set: whether this process got the signal; stays False among several processes.
    """

    def __init__(self) -> None:
        """Start unset."""
        self.is_set = False
        self._is_interrupted = False

    def __enter__(self) -> "StopSignal":
        handlers = {signal.SIGINT: self._interrupt}
        # Among several processes SIGTERM is left to JAX, whose handler tells the others.
        if jax.process_count() == 1:
            handlers[signal.SIGTERM] = self._handle
        self._previous = {number: signal.signal(number, h) for number, h in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def is_due(self, done: int) -> bool:
        """Whether to stop after `done` steps, the same on all processes; ask after every step."""
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(done))
        return self.is_set

    def _handle(self, *_: object) -> None:
        self.is_set = True

    def _interrupt(self, *_: object) -> None:
        if self._is_interrupted:
            os.write(2, _SECOND)
            os._exit(ExitCode.INTERRUPTED)
        self._is_interrupted = True
        os.write(2, _FIRST)
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.is_set = True
