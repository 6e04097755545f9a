"""Metrics on disk: `metrics.jsonl` and TensorBoard, written by process 0, never stopping a run.

Both outputs are written synchronously. tensorboardX's own `SummaryWriter` queues events for a
thread; when that thread dies of a full disk the queue fills and the training loop hangs, so only
its messages and checksum are used here. Videos become animated GIFs in `Summary.Image`, which
TensorBoard plays; its `add_video` would need moviepy.

A resumed run first drops the lines logged after its checkpoint, so that the file ends up with the
steps of an uninterrupted run, each once.
"""

import json
import math
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from absl import logging
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from tpdiff_jax.durable_files import write_durably
from tpdiff_jax.infra import media

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIR = "tensorboard"


class MetricWriter:
    """Sends scalars and videos to every sink; failures are logged once per sink and counted.

    Attributes:
        num_failed_writes: how many writes were lost so far.
    """

    def __init__(self, sinks: Mapping[str, "Sink"]) -> None:
        self.num_failed_writes = 0
        self._sinks = dict(sinks)
        self._warned: set[str] = set()

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes one line of metrics.

        Args:
            step: number of completed steps.
            scalars: name -> Python, numpy or jax scalar; NaN and infinities become null.
        """
        self._each(lambda sink: sink.write_scalars(step, scalars))

    def write_videos(
        self, step: int, videos: Mapping[str, np.ndarray], *, fps: int = media.DEFAULT_FPS
    ) -> None:
        """Shows videos where a sink can.

        Args:
            step: number of completed steps.
            videos: name -> uint8 [n, f, h, w, c], drawn as one grid.
            fps: frames per second.
        """
        self._each(lambda sink: sink.write_videos(step, videos, fps))

    def close(self) -> None:
        """Closes every sink; calling it again does nothing."""
        self._each(lambda sink: sink.close())

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _each(self, action: Callable[["Sink"], None]) -> None:
        for name, sink in self._sinks.items():
            try:
                action(sink)
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


def open_metric_writer(
    workdir: str | os.PathLike[str], *, restored_step: int | None, process_index: int = 0
) -> MetricWriter:
    """Opens `metrics.jsonl` and `tensorboard/` in a run's directory.

    Args:
        workdir: the run's directory; made when missing.
        restored_step: completed steps of the restored checkpoint; later lines are dropped. None
            for a fresh start, which drops every line.
        process_index: only process 0 writes; the others get a writer that does nothing.

    Returns:
        The writer.
    """
    if process_index != 0:
        return MetricWriter({})
    last_kept_step = -1 if restored_step is None else restored_step
    return MetricWriter(
        {
            METRICS_FILE: JsonlSink(Path(workdir) / METRICS_FILE, last_kept_step),
            TENSORBOARD_DIR: TensorBoardSink(Path(workdir) / TENSORBOARD_DIR, last_kept_step),
        }
    )


def open_line_writer(path: str | os.PathLike[str], *, process_index: int = 0) -> MetricWriter:
    """Opens a file of JSON lines that, unlike `metrics.jsonl`, keeps those of every session.

    Args:
        path: the file; made with its first line.
        process_index: only process 0 writes.

    Returns:
        The writer.
    """
    path = Path(path)
    return MetricWriter({path.name: JsonlSink(path, sys.maxsize)} if process_index == 0 else {})


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the lines of a metrics file; a line that a crash cut short is left out.

    Args:
        path: a `metrics.jsonl`; a missing file holds no lines.

    Returns:
        One dictionary a line, in the file's order, each with an integer `step`.
    """
    if not os.path.exists(path):
        return []
    return [record for _, record in _valid_lines(Path(path).read_bytes())]


class Sink(Protocol):
    """One output of the metric writer; every method may raise."""

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None: ...

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray], fps: int) -> None: ...

    def close(self) -> None: ...


class JsonlSink:
    """One strict JSON object a line, on disk when the call returns."""

    def __init__(self, path: Path, last_kept_step: int) -> None:
        self._path = path
        self._last_kept_step = last_kept_step
        self._file: _RecordFile | None = None

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        record = {"step": int(step)} | {name: _json_value(v) for name, v in scalars.items()}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        if self._file is None:
            _drop_later_lines(self._path, self._last_kept_step)
            self._file = _RecordFile(self._path)
        self._file.append(line)

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray], fps: int) -> None:
        """Videos have no place in a line of JSON."""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class TensorBoardSink:
    """One new event file per process, in TensorBoard's format (TFRecords of Event messages)."""

    def __init__(self, directory: Path, last_kept_step: int) -> None:
        self._path = directory / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        # In TensorBoard a START hides what earlier files logged from this step on.
        start = SessionLog(status=SessionLog.START)
        self._heading = _tf_record(
            Event(wall_time=time.time(), file_version="brain.Event:2")
        ) + _tf_record(Event(wall_time=time.time(), step=last_kept_step + 1, session_log=start))
        self._file: _RecordFile | None = None

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        values = {name: _json_value(value) for name, value in scalars.items()}
        self._write(
            step,
            [
                Summary.Value(tag=name, simple_value=math.nan if value is None else value)
                for name, value in values.items()
                if not isinstance(value, str)
            ],
        )

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray], fps: int) -> None:
        self._write(step, [_image_value(name, video, fps) for name, video in videos.items()])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, step: int, values: list[Summary.Value]) -> None:
        event = Event(wall_time=time.time(), step=int(step), summary=Summary(value=values))
        record = _tf_record(event)
        if self._file is None:
            self._file = _RecordFile(self._path)
        self._file.append(self._heading + record)
        self._heading = b""


class _RecordFile:
    """A file that holds whole records only: what a failed append left is cut off by the next."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab", buffering=0)
        self._size = self._file.seek(0, os.SEEK_END)

    def append(self, record: bytes) -> None:
        if self._file.tell() != self._size:
            self._file.truncate(self._size)
            self._file.seek(self._size)
        written = self._file.write(record)  # unbuffered: one system call, nothing left to lose
        if written != len(record):
            raise OSError(f"only {written} of {len(record)} bytes fitted")
        self._size += len(record)

    def close(self) -> None:
        self._file.close()


def _tf_record(event: Event) -> bytes:
    """Length, its checksum, the event, its checksum; all little-endian."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join(
        [
            length,
            struct.pack("<I", masked_crc32c(length)),
            data,
            struct.pack("<I", masked_crc32c(data)),
        ]
    )


def _image_value(name: str, video: np.ndarray, fps: int) -> Summary.Value:
    encoded = media.gif_grid(video, fps=fps)
    width, height = (int.from_bytes(encoded[i : i + 2], "little") for i in (6, 8))  # GIF header
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
    return Summary.Value(tag=name, image=image)


def _json_value(value: Any) -> int | float | str | None:
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


def _valid_lines(content: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for line in content.splitlines(keepends=True):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if line.endswith(b"\n") and isinstance(record, dict) and type(record.get("step")) is int:
            yield line, record


def _drop_later_lines(path: Path, last_kept_step: int) -> None:
    """Keeps the whole lines up to `last_kept_step`; the file is replaced durably, in one step."""
    if not path.exists():
        return
    before = path.read_bytes()
    kept = [line for line, record in _valid_lines(before) if record["step"] <= last_kept_step]
    after = b"".join(kept)
    if after != before:
        write_durably(path, after)
