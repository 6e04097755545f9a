"""Metrics to every sink of a run, written by process 0, never stopping the run.

Sinks are written one after another, synchronously. One that fails, opening included, is named in
the log once and counted; the others get every line.
"""

import contextlib
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from tpdiff_jax.files import media
from tpdiff_jax.run_log.json_lines import JsonlSink
from tpdiff_jax.run_log.sinks import DEFAULT_SINKS, SINKS, Scalar, Sink


class MetricWriter:
    """Sends scalars and videos to every sink; failures are logged once per sink and counted.

    Attributes:
        num_failed_writes: how many writes were lost so far.
    """

    def __init__(self, constructors: Mapping[str, Callable[[], Sink]]) -> None:
        """Open the sinks.

        Args:
            constructors: name -> what opens the sink.
        """
        self.num_failed_writes = 0
        self._warned: set[str] = set()
        self._sinks = {name: _opened(construct) for name, construct in constructors.items()}

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes one line of metrics.

        Args:
            step: number of completed steps.
            scalars: name -> Python, numpy or jax scalar; NaN and infinities become null.
        """
        self._each(lambda sink: sink.write_scalars(int(step), _plain(scalars)))

    def write_videos(
        self, step: int, videos: Mapping[str, np.ndarray], *, fps: int = media.DEFAULT_FPS
    ) -> None:
        """Shows videos where a sink can.

        Args:
            step: number of completed steps.
            videos: name -> uint8 [n, f, h, w, c], drawn as one grid.
            fps: frames per second.
        """
        self._each(lambda sink: sink.write_videos(int(step), videos, fps))

    def close(self) -> None:
        """Closes every sink; calling it again does nothing."""
        self._each(lambda sink: sink.close())

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _each(self, action: Callable[[Sink], None]) -> None:
        for name, sink in self._sinks.items():
            with self._counting_failures(name):
                action(sink)

    @contextlib.contextmanager
    def _counting_failures(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is: a lost metric never stops a run
            self.num_failed_writes += 1
            if name not in self._warned:
                self._warned.add(name)
                logging.warning(
                    "writing metrics to %s failed (%s: %s); the run goes on, further failures"
                    " are only counted",
                    name,
                    type(error).__name__,
                    error,
                )


class _Unopened:
    """Stands for a sink that could not be opened: each write fails as opening it did."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def write_scalars(self, step: int, scalars: Mapping[str, Scalar]) -> None:
        raise self._error

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray], fps: int) -> None:
        raise self._error

    def close(self) -> None:
        """Nothing was opened."""


def open_metric_writer(
    workdir: str | os.PathLike[str],
    *,
    restored_step: int | None,
    sinks: Sequence[str] = DEFAULT_SINKS,
    process_index: int = 0,
) -> MetricWriter:
    """Opens the sinks of a run.

    Args:
        workdir: the run's directory; made when missing.
        restored_step: completed steps of the restored checkpoint; later lines are dropped. None
            for a fresh start, which drops every line.
        sinks: names in `SINKS`, in the order in which they are written.
        process_index: only process 0 writes; the others get a writer that does nothing.

    Returns:
        The writer.
    """
    if process_index != 0:
        return MetricWriter({})
    last_kept_step = -1 if restored_step is None else restored_step
    return MetricWriter(
        {name: functools.partial(SINKS[name], Path(workdir), last_kept_step) for name in sinks}
    )


def open_line_writer(path: str | os.PathLike[str], *, process_index: int = 0) -> MetricWriter:
    """Opens a file of JSON lines that, unlike `metrics.jsonl`, keeps those of every session.

    Args:
        path: the file; made with its first line.
        process_index: only process 0 writes.

    Returns:
        The writer.
    """
    if process_index != 0:
        return MetricWriter({})
    path = Path(path)
    return MetricWriter({path.name: functools.partial(JsonlSink, path, sys.maxsize)})


def _opened(construct: Callable[[], Sink]) -> Sink:
    try:
        return construct()
    except Exception as error:  # as in a write: its library is missing, its server is away
        return _Unopened(error)


def _plain(scalars: Mapping[str, Any]) -> dict[str, Scalar]:
    return {name: _plain_value(value) for name, value in scalars.items()}


def _plain_value(value: Any) -> Scalar:
    """A scalar as strict JSON has it; bools become 0 or 1, NaN and infinities None."""
    if value is None or isinstance(value, str):
        return value
    scalar = np.asarray(value)
    if scalar.size != 1:
        raise ValueError(f"a metric must be one number, got shape {scalar.shape}")
    if np.issubdtype(scalar.dtype, np.integer) or scalar.dtype == np.bool_:
        return int(scalar.item())
    number = float(scalar.item())
    return number if math.isfinite(number) else None
