"""metrics.jsonl and TensorBoard: strict, resumable, and never able to stop a run."""

import contextlib
import io
import json
import os
import resource
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from tpdiff_jax.run_log.json_lines import read_metrics
from tpdiff_jax.run_log.metric_writers import open_metric_writer


def _strict(path):
    """The lines as a parser sees them that refuses NaN and Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def _events(workdir):
    """TFRecord by hand: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda p: p.name):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            events.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return events


@contextlib.contextmanager
def _disk_full_after(num_bytes):
    """No file can grow beyond `num_bytes`, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    return lines


def test_lines_are_strict_json_with_an_integer_step_and_null_for_non_finite(tmp_path):
    with open_metric_writer(tmp_path, restored_step=None) as writer:
        writer.write_scalars(
            np.int64(3),
            {
                "stage": np.int32(2),
                "loss": jnp.float32(0.25),
                "bad": float("nan"),
                "worse": np.float32("-inf"),
                "missing": None,
                "ok": True,
                "commit": "abc",
            },
        )
    assert _strict(tmp_path / "metrics.jsonl") == [
        {
            "step": 3,
            "stage": 2,
            "loss": 0.25,
            "bad": None,
            "worse": None,
            "missing": None,
            "ok": 1,
            "commit": "abc",
        }
    ]
    assert writer.num_failed_writes == 0


def test_a_line_is_on_disk_as_soon_as_the_call_returns(tmp_path):
    writer = open_metric_writer(tmp_path, restored_step=None)
    writer.write_scalars(1, {"loss": 1.0})
    assert _strict(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.0}]
    writer.close()
    writer.close()


def test_a_resumed_file_equals_that_of_an_uninterrupted_run(tmp_path):
    def log(workdir, steps, restored_step):
        with open_metric_writer(workdir, restored_step=restored_step) as writer:
            for step in steps:
                writer.write_scalars(step, {"loss": 1 / (step + 1)})

    log(tmp_path / "whole", range(10), None)
    log(tmp_path / "killed", range(8), None)
    path = tmp_path / "killed" / "metrics.jsonl"
    with open(path, "ab") as file:
        file.write(b'{"step": 8, "lo')  # killed within a line, three steps after the checkpoint
    log(tmp_path / "killed", range(6, 10), 5)
    assert path.read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_fresh_start_drops_every_earlier_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n')
    with open_metric_writer(tmp_path, restored_step=None) as writer:
        writer.write_scalars(0, {"loss": 2.0})
    assert _strict(tmp_path / "metrics.jsonl") == [{"step": 0, "loss": 2.0}]


def test_only_process_zero_writes(tmp_path):
    with open_metric_writer(tmp_path / "run", restored_step=None, process_index=1) as writer:
        writer.write_scalars(0, {"loss": 1.0})
        writer.write_videos(0, {"samples": np.zeros((1, 2, 4, 4, 1), np.uint8)})
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_logged_once_counted_and_leaves_whole_lines(tmp_path, warnings):
    with open_metric_writer(tmp_path, restored_step=None) as writer:
        writer.write_scalars(1, {"loss": 1.0})
        with _disk_full_after(40):  # the second line fits in part only
            for step in (2, 3, 4):
                writer.write_scalars(step, {"loss": 1.0})
        writer.write_scalars(5, {"loss": 1.0})
    assert [line["step"] for line in _strict(tmp_path / "metrics.jsonl")] == [1, 5]
    assert writer.num_failed_writes == 6  # three in each of the two outputs
    assert len(warnings) == 2 and "metrics.jsonl" in warnings[0] and "tensorboard" in warnings[1]


def test_an_unwritable_workdir_never_raises(tmp_path, warnings):
    (tmp_path / "file").write_text("in the way")
    with open_metric_writer(tmp_path / "file" / "run", restored_step=None) as writer:
        writer.write_scalars(1, {"loss": 1.0})
        writer.write_videos(1, {"samples": np.zeros((1, 2, 4, 4, 1), np.uint8)})
    assert writer.num_failed_writes == 3
    assert len(warnings) == 2


def test_a_metric_that_is_no_number_is_counted_not_raised(tmp_path, warnings):
    with open_metric_writer(tmp_path, restored_step=None) as writer:
        writer.write_scalars(1, {"loss": np.zeros(3)})
        writer.write_scalars(2, {"loss": 1.0})
    assert [line["step"] for line in _strict(tmp_path / "metrics.jsonl")] == [2]
    assert "shape (3,)" in warnings[0]


def test_tensorboard_gets_scalars_and_a_playable_gif(tmp_path):
    frames = np.arange(2 * 5 * 8 * 8, dtype=np.uint8).reshape(2, 5, 8, 8, 1)
    with open_metric_writer(tmp_path, restored_step=None) as writer:
        writer.write_scalars(7, {"eval/label_accuracy": 0.5, "note": "text stays out"})
        writer.write_videos(7, {"samples": frames})
    values = [(e.step, v) for e in _events(tmp_path) for v in e.summary.value]
    assert [(step, value.tag) for step, value in values] == [
        (7, "eval/label_accuracy"),
        (7, "samples"),
    ]
    assert values[0][1].simple_value == 0.5
    image = values[1][1].image
    gif = Image.open(io.BytesIO(image.encoded_image_string))
    assert gif.format == "GIF" and gif.n_frames == 5
    assert gif.size == (image.width, image.height)


def test_tensorboard_shows_the_config_as_text(tmp_path):
    (tmp_path / "config.json").write_text('{"train":\n{"seed": 3}}')
    with open_metric_writer(tmp_path, restored_step=None) as writer:
        writer.write_scalars(7, {"loss": 0.5})
        writer.write_scalars(8, {"loss": 0.5})
    values = [v for e in _events(tmp_path) for v in e.summary.value]
    assert [value.tag for value in values] == ["config/text_summary", "loss", "loss"]
    assert values[0].metadata.plugin_data.plugin_name == "text"
    assert values[0].tensor.string_val == [b'    {"train":\n    {"seed": 3}}']


def test_tensorboard_hides_what_a_resumed_run_logs_again(tmp_path):
    for restored_step in (None, 5):
        with open_metric_writer(tmp_path, restored_step=restored_step) as writer:
            writer.write_scalars(6, {"loss": 1.0})
    starts = [e.step for e in _events(tmp_path) if e.session_log.status == SessionLog.START]
    assert starts == [0, 6]


def test_tensorboard_holds_whole_records_only_after_a_failed_write(tmp_path, warnings):
    with open_metric_writer(tmp_path, restored_step=None) as writer:
        writer.write_scalars(1, {"loss": 1.0})
        (path,) = (tmp_path / "tensorboard").iterdir()
        with _disk_full_after(path.stat().st_size + 7):
            writer.write_scalars(2, {"loss": 1.0})
        writer.write_scalars(3, {"loss": 1.0})
    assert [e.step for e in _events(tmp_path) if e.summary.value] == [1, 3]


def test_tensorboard_itself_reads_the_events(tmp_path):
    with open_metric_writer(tmp_path, restored_step=None) as writer:
        writer.write_scalars(1, {"loss": 1.0})
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert list(LegacyEventFileLoader(str(path)).Load()) == _events(tmp_path)


def test_reading_leaves_out_torn_and_foreign_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2}\n[1]\n{"loss": 3}\n{"step": true}\nx\n{"step": 2}')
    assert read_metrics(path) == [{"step": 1, "loss": 2}]
    assert read_metrics(tmp_path / "missing.jsonl") == []


def test_of_what_is_no_file_no_lines_are_read(tmp_path):
    """A folder, a pipe (which would never end) and links that lead nowhere."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("missing", "folder", "pipe", "gone", "circle"):
        assert read_metrics(tmp_path / name) == []
