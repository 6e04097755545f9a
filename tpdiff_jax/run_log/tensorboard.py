"""`tensorboard/`: scalars as curves, videos as pictures that play, the config as text.

tensorboardX's own `SummaryWriter` queues events for a thread; when that thread dies of a full disk
the queue fills and the training loop hangs, so events are written here, as `event_bytes` makes
them. Videos become animated GIFs in `Summary.Image`, which TensorBoard plays.
"""

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tpdiff_jax.files import media
from tpdiff_jax.run_log.event_bytes import event, image_value, scalar_value, text_value, tf_record
from tpdiff_jax.run_log.record_file import RecordFile

TENSORBOARD_DIR = "tensorboard"


class TensorBoardSink:
    """One new event file per process, in TensorBoard's format (TFRecords of Event messages)."""

    def __init__(self, directory: Path, last_kept_step: int) -> None:
        self._path = directory / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        # In TensorBoard a START hides what earlier files logged from this step on.
        first = event(time.time(), file_version="brain.Event:2")
        start = event(time.time(), step=last_kept_step + 1, is_start=True)
        self._heading = tf_record(first) + tf_record(start)
        self._config_path = directory.parent / "config.json"
        self._file: RecordFile | None = None

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._write(
            step,
            [
                scalar_value(name, math.nan if value is None else value)
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

    def _write(self, step: int, values: list[bytes]) -> None:
        record = tf_record(event(time.time(), step=int(step), values=values))
        if self._file is None:
            self._file = RecordFile(self._path)
            if self._config_path.is_file():  # written by then; a text of its own in every session
                lines = self._config_path.read_text().splitlines()
                block = "\n".join(f"    {line}" for line in lines)
                shown = text_value("config/text_summary", block)  # Markdown: a block of code
                self._heading += tf_record(event(time.time(), step=int(step), values=[shown]))
        self._file.append(self._heading + record)
        self._heading = b""


def _image_value(name: str, video: np.ndarray, fps: int) -> bytes:
    encoded = media.gif_grid(video, fps=fps)
    width, height = (int.from_bytes(encoded[i : i + 2], "little") for i in (6, 8))  # GIF header
    return image_value(name, encoded, height=height, width=width)
