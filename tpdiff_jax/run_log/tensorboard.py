"""`tensorboard/`: scalars as curves, videos as pictures that play, the config as text.

Of TensorBoard's package come messages and records: a writer with a queue and a thread, as it has,
would let the training loop hang when the thread dies of a full disk. Videos become animated GIFs in
`Summary.Image`, which TensorBoard plays.
"""

import io
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.summary.writer.record_writer import RecordWriter

from tpdiff_jax.files import media
from tpdiff_jax.run_log.record_file import RecordFile

TENSORBOARD_DIR = "tensorboard"


class TensorBoardSink:
    """One new event file per process, in TensorBoard's format (TFRecords of Event messages)."""

    def __init__(self, directory: Path, last_kept_step: int) -> None:
        self._path = directory / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        # In TensorBoard a START hides what earlier files logged from this step on.
        start = SessionLog(status=SessionLog.START)
        self._heading = _tf_record(
            Event(wall_time=time.time(), file_version="brain.Event:2")
        ) + _tf_record(Event(wall_time=time.time(), step=last_kept_step + 1, session_log=start))
        self._config_path = directory.parent / "config.json"
        self._file: RecordFile | None = None

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._write(
            step,
            [
                Summary.Value(tag=name, simple_value=math.nan if value is None else value)
                for name, value in scalars.items()
                if not isinstance(value, str)
            ],
        )

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray], fps: int) -> None:
        """Write each set of videos as an animated image.

        Args:
            step: number of completed steps.
            videos: name -> uint8 [n, f, h, w, c].
            fps: frames per second.
        """
        self._write(step, [_image_value(name, video, fps) for name, video in videos.items()])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, step: int, values: list[Summary.Value]) -> None:
        event = Event(wall_time=time.time(), step=int(step), summary=Summary(value=values))
        record = _tf_record(event)
        if self._file is None:
            self._file = RecordFile(self._path)
            if self._config_path.is_file():  # written by then; a text of its own in every session
                text = _text_value("config", self._config_path.read_text())
                shown = Event(wall_time=time.time(), step=int(step), summary=Summary(value=[text]))
                self._heading += _tf_record(shown)
        self._file.append(self._heading + record)
        self._heading = b""


def _tf_record(event: Event) -> bytes:
    record = io.BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    return record.getvalue()


def _image_value(name: str, video: np.ndarray, fps: int) -> Summary.Value:
    encoded = media.gif_grid(video, fps=fps)
    width, height = (int.from_bytes(encoded[i : i + 2], "little") for i in (6, 8))  # GIF header
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
    return Summary.Value(tag=name, image=image)


def _text_value(name: str, text: str) -> Summary.Value:
    """Text as TensorBoard's page of texts shows it: Markdown, here a block of code."""
    block = "\n".join("    " + line for line in text.splitlines())
    tensor = TensorProto(dtype="DT_STRING", string_val=[block.encode()])
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary.Value(tag=f"{name}/text_summary", metadata=metadata, tensor=tensor)
