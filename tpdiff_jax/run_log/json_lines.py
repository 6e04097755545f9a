"""`metrics.jsonl`: one strict JSON object a line, each on disk when it is written.

A resumed run first drops the lines logged after its checkpoint, so that the file ends up with the
steps of an uninterrupted run, each once.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import parse_json
from tpdiff_jax.files.json_schema import COUNT, NUMBER
from tpdiff_jax.run_log.record_file import RecordFile

METRICS_FILE = "metrics.jsonl"


class JsonlSink:
    """One strict JSON object a line, on disk when the call returns."""

    def __init__(self, path: Path, last_kept_step: int) -> None:
        self._path = path
        self._last_kept_step = last_kept_step
        self._file: RecordFile | None = None

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        line = json.dumps({"step": step} | dict(scalars), allow_nan=False).encode() + b"\n"
        if self._file is None:
            _drop_later_lines(self._path, self._last_kept_step)
            self._file = RecordFile(self._path)
        self._file.append(line)

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray], fps: int) -> None:
        """Do nothing: videos have no place in a line of JSON.

        Args:
            step: unused.
            videos: unused.
            fps: unused.
        """

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the lines of a metrics file; a line that a crash cut short is left out.

    Args:
        path: a `metrics.jsonl`; a missing file holds no lines.

    Returns:
        One dictionary a line, in the file's order, each with an integer `step`.
    """
    if not os.path.isfile(path):  # of a folder or a pipe nothing can be read
        return []
    return [record for _, record in valid_lines(Path(path).read_bytes())]


def valid_lines(content: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the whole lines of a file of metrics, each as it stands and as an object."""
    for line in content.splitlines(keepends=True):
        try:
            record = parse_json(line)
        except ValueError:
            continue
        if line.endswith(b"\n") and isinstance(record, dict) and _is_ours(record):
            yield line, record


def _is_ours(record: dict[str, Any]) -> bool:
    """Whether a line is one that could have been written here: a step, and single values."""
    is_single = all(v is None or isinstance(v, str) or NUMBER.is_valid(v) for v in record.values())
    return COUNT.is_valid(record.get("step")) and is_single and _is_loss(record.get("loss"))


def _is_loss(value: Any) -> bool:
    return value is None or NUMBER.is_valid(value)


def _drop_later_lines(path: Path, last_kept_step: int) -> None:
    """Keeps the whole lines up to `last_kept_step`; the file is replaced durably, in one step."""
    if not path.exists():
        return
    before = path.read_bytes()
    kept = [line for line, record in valid_lines(before) if record["step"] <= last_kept_step]
    after = b"".join(kept)
    if after != before:
        write_durably(path, after)
