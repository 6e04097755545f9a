"""Rows of `bench.gpu_suite`: figures, or why there are none; and the time that is left."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from bench.timing import FloatArray, endless_rounds, seconds_of

Row = dict[str, Any]
_SHOWN = 2_000  # characters of a traceback's end
_SPARE = 0.9  # of a part's seconds may be measured in; the rest is for the last round's mistakes


class OutOfTime(Exception):
    """A part has more to measure than its time allows."""


class Watch:
    """The time that a part may take."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start.

        Args:
            seconds: after which the part is ended from outside.
            clock: counts seconds.
        """
        self._clock, self._start, self._seconds = clock, clock(), seconds

    @property
    def gone(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def left(self) -> float:
        """Seconds in which work may still be begun; below 0 there is none."""
        return _SPARE * self._seconds - self.gone

    def check(self) -> None:
        """Raise OutOfTime where no work may be begun any more."""
        if self.left < 0:
            raise OutOfTime(f"{self.gone:.0f} of {self._seconds:.0f} s are gone")

    def share(self, parts: int) -> "Watch":
        """Return the watch of the first of so many equal parts of what is left."""
        return Watch(max(0.0, self.left) / max(1, parts) / _SPARE, self._clock)


def attempt(name: str, measure: Callable[[], Mapping[str, Any]]) -> Row:
    """Return a row's figures, or its error: the next row is measured all the same.

    Args:
        name: of the row.
        measure: returns the figures.
    """
    try:
        return {"name": name, **measure()}
    except Exception as error:  # of whatever kind: a row that fails must not take the others along
        return failed_row(name, error)


def failed_row(name: str, error: Exception) -> Row:
    """Return the row of what has failed.

    Args:
        name: of the row.
        error: what was raised.
    """
    trace = "".join(traceback.format_exception(error))[-_SHOWN:]
    return {"name": name, "error": error_line(error), "trace": trace}


def error_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:300]}".rstrip(": ")


def first_calls(cases: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Call each case once, so that it is compiled; return the seconds of it."""
    return {name: seconds_of(call) for name, call in cases.items()}


def timed_rounds(
    cases: Mapping[str, Callable[[], Any]], watch: Watch, most: int
) -> Iterator[dict[str, FloatArray]]:
    """Time compiled cases in turn while there is time; yield what is known after each round.

    Args:
        cases: name -> a function that starts the work and returns what to wait for.
        watch: a round is begun only where one as long as the longest so far would end in time; the
            first one always is.
        most: rounds.

    Yields:
        name -> seconds of a call in each round, [rounds so far].
    """
    columns: dict[str, list[float]] = {name: [] for name in cases}
    longest = 0.0
    for done, found in enumerate(endless_rounds(cases, dict.fromkeys(cases, 1)), start=1):
        for name, seconds in found.items():
            columns[name].append(seconds)
        yield {name: np.array(column) for name, column in columns.items()}
        longest = max(longest, sum(found.values()))
        if done >= most or watch.left < longest:
            return


def forget_programs() -> None:
    """Give back the memory of what was compiled and of what its arrays held."""
    jax.clear_caches()
