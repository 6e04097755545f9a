"""SIGTERM, the notice of preemption, as a question that the loop asks after every step.

One process sets a flag. Of several, any one may get the signal, and all must leave after the same
step, or the others would wait for it forever: JAX's coordination service agrees on the step.
"""

import signal

import jax
from jax.experimental import multihost_utils


class StopSignal:
    """Set by SIGTERM while used as a context manager.

    Attributes:
        is_set: whether this process got the signal; used where it is the only one.
    """

    def __init__(self) -> None:
        """Start unset."""
        self.is_set = False

    def __enter__(self) -> "StopSignal":
        # Among several processes the signal is left to JAX, whose handler tells the others.
        if jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._previous)

    def is_due(self, done: int) -> bool:
        """Whether to stop after `done` steps, the same on all processes; ask after every step."""
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(done))
        return self.is_set

    def _handle(self, *_: object) -> None:
        self.is_set = True
