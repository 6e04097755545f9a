"""Weights & Biases, offline, with the real package: what its files hold of a resumed run."""

import json
import pathlib
import struct
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from tests.tiny import REPO
from tpdiff_jax.run_log.metric_writers import open_metric_writer
from tpdiff_jax.run_log.weights_and_biases import ID_FILE, OPEN_FILE, WandbSink

pytest.importorskip("wandb")
from wandb.proto.wandb_internal_pb2 import Record  # noqa: E402

BLOCK = 32768


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)


def records(path: pathlib.Path) -> Iterator[Record]:
    """Read a .wandb file: 7 bytes of its own, then LevelDB's log format in blocks of 32 KiB."""
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:  # no room for a header: zeros up to the next block
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def history(path: pathlib.Path) -> dict[int, dict[str, Any]]:
    """Step -> what was logged there."""
    lines: dict[int, dict[str, Any]] = {}
    for record in records(path):
        if record.HasField("history"):
            items = record.history.item
            values = {
                ".".join(i.nested_key) or i.key: json.loads(i.value_json or "null") for i in items
            }
            lines.setdefault(record.history.step.num, {}).update(values)
    return lines


SESSION = """
import sys
import numpy as np
from tpdiff_jax.run_log.metric_writers import open_metric_writer
workdir, restored, first, last = sys.argv[1], *map(int, sys.argv[2:5])
step = None if restored < 0 else restored
writer = open_metric_writer(workdir, restored_step=step, sinks=("jsonl", "wandb"))
for step in range(first, last + 1):
    writer.write_scalars(step, {"loss": 1.0 / step, "stage": step % 3, "rate": np.nan})
if len(sys.argv) == 5:
    writer.write_videos(last, {"samples": np.zeros((2, 3, 8, 8, 1), np.uint8)})
writer.close()
assert writer.num_failed_writes == 0
"""


def session(workdir: pathlib.Path, restored: int, first: int, last: int, *more: str) -> None:
    """Log as a run does, in a process of its own; the loss at a step is a function of the step."""
    arguments = [sys.executable, "-c", SESSION, str(workdir), str(restored), str(first), str(last)]
    subprocess.run([*arguments, *more], cwd=REPO, check=True, timeout=120)


def test_a_resumed_run_is_one_run_with_one_curve(tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "flow"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps({"train": {"num_steps": 12}}))
    session(workdir, -1, 1, 8, "without videos: it was killed")
    session(workdir, 6, 7, 12)

    files = sorted((workdir / "wandb").glob("offline-run-*/run-*.wandb"))
    run_id = (workdir / ID_FILE).read_text()
    assert len(files) == 2 and {path.stem for path in files} == {f"run-{run_id}"}
    first, second = map(history, files)
    assert sorted(first) == list(range(1, 9)) and sorted(second) == list(range(7, 13))
    for step in (7, 8):  # logged twice, with the same value: the curve is one
        assert first[step]["loss"] == second[step]["loss"]
    curve = {step: line["loss"] for step, line in {**first, **second}.items()}
    assert curve == {step: 1.0 / step for step in range(1, 13)}
    assert "rate" not in second[12], "a value that is not finite is left out"
    assert second[12]["samples._type"] == "video-file"
    assert (files[1].parent / "files" / second[12]["samples.path"]).read_bytes()[:4] == b"GIF8"

    (run,) = (record.run for record in records(files[1]) if record.HasField("run"))
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["train"] == {"num_steps": 12}
    assert (run.project, run.display_name) == ("tpdiff_jax", "flow")
    assert not run.git.remote_url, "which repository it is run in is nobody's business"


KILLED = SESSION.replace("writer.close()", "import os; os.kill(os.getpid(), 9)")


@pytest.mark.parametrize("sink_before", ["wandb", "jsonl"])
def test_what_a_kill_left_in_memory_is_written_by_the_next_session(
    sink_before: str, tmp_path: pathlib.Path
) -> None:
    """Killed with nothing flushed; also where Weights & Biases is named from the resume on."""
    if sink_before == "wandb":
        words = [sys.executable, "-c", KILLED, str(tmp_path), "-1", "1", "8", "without videos"]
        killed = subprocess.run(words, cwd=REPO, check=False, timeout=120)
        assert killed.returncode == -9
    else:
        with open_metric_writer(tmp_path, restored_step=None, sinks=("jsonl",)) as writer:
            for step in range(1, 9):
                writer.write_scalars(step, {"loss": 1.0 / step})
    session(tmp_path, 6, 7, 12, "without videos")
    session(tmp_path, 12, 13, 14, "without videos")  # the one before ended as it should
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({path.stem for path in files}) == 1
    *_, resumed, last = map(history, files)
    first_step = 1 if sink_before == "wandb" else 7
    assert {step: line["loss"] for step, line in resumed.items()} == {
        step: 1.0 / step for step in range(first_step, 13)
    }
    assert sorted(last) == [13, 14] and not (tmp_path / OPEN_FILE).exists()


def test_the_log_names_the_run_in_every_session(tmp_path, monkeypatch, caplog) -> None:
    """With a stand-in for the library, whose own messages are silenced."""
    monkeypatch.setattr("wandb.init", lambda **_: types.SimpleNamespace(log=lambda *_, **__: None))
    named = []
    for last_kept_step, project in ((-1, "tpdiff_jax"), (3, "mine"), (-1, "mine")):
        monkeypatch.setenv("WANDB_PROJECT", "" if project == "tpdiff_jax" else project)
        caplog.clear()
        with caplog.at_level("INFO", logger="absl"):
            WandbSink(tmp_path, last_kept_step).write_scalars(4, {"loss": 1.0})
        run_id = (tmp_path / ID_FILE).read_text()
        assert f"Weights & Biases: run {run_id} of project {project}" in caplog.text
        named.append(run_id)
    assert named[0] == named[1] != named[2]


def test_a_fresh_start_in_the_same_folder_is_another_run(tmp_path: pathlib.Path) -> None:
    session(tmp_path, -1, 1, 1)
    first = (tmp_path / ID_FILE).read_text()
    session(tmp_path, -1, 1, 1)
    assert (tmp_path / ID_FILE).read_text() != first
