"""The queue: every run once, on cores of its own, failures reported, finished ones skipped."""

import json
import os
import sys
from types import SimpleNamespace

import pytest

from experiments.grid.run_queue import LOG_FILE, run_all

SCRIPT = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
print("hello from", folder.name)
if folder.name == "bad":
    sys.exit("out of luck")
cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
(folder / "results.json").write_text(json.dumps(cores))
"""


def fake_run(folder):
    done = folder / "results.json"
    return SimpleNamespace(
        workdir=folder,
        flops=1e9,
        num_steps=1,
        command=lambda: [sys.executable, "-c", SCRIPT, str(folder)],
        is_finished=done.is_file,
        steps_done=lambda: 0,
    )


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("experiments.grid.run_queue._POLL_SECONDS", 0.02)


def test_what_fails_is_named_and_the_rest_runs(tmp_path, at_once, capsys):
    runs = [fake_run(tmp_path / name) for name in ("bad", "good")]
    assert run_all(runs) == runs[:1]
    assert runs[1].is_finished()
    assert "hello from good" in (tmp_path / "good" / LOG_FILE).read_text()
    told = capsys.readouterr().err
    assert "bad ended with code 1" in told
    assert "out of luck" in told


def test_a_finished_run_is_left_alone(tmp_path, at_once):
    run = fake_run(tmp_path / "good")
    run.workdir.mkdir()
    (run.workdir / "results.json").write_text("mine")
    assert run_all([run]) == []
    assert (run.workdir / "results.json").read_text() == "mine"


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores and a system that pins",
)
def test_workers_side_by_side_are_pinned_apart(tmp_path, at_once):
    before = os.sched_getaffinity(0)
    runs = [fake_run(tmp_path / str(i)) for i in range(2)]
    assert run_all(runs, workers=2) == []
    first, second = (set(json.loads((r.workdir / "results.json").read_text())) for r in runs)
    assert first and second and not first & second
    assert os.sched_getaffinity(0) == before
    alone = fake_run(tmp_path / "alone")
    run_all([alone])
    assert set(json.loads((alone.workdir / "results.json").read_text())) == before
