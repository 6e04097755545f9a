"""The cost of saving is measured on the real path and leaves nothing behind."""

import json
import pathlib

import pytest

from bench import checkpoint


def test_every_figure_is_measured_and_the_checkpoints_are_removed(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checkpoint.main([f"--out={tmp_path}", "--megabytes=2", "--rounds=2"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.json", "checkpoint.md"]
    report = json.loads((tmp_path / "checkpoint.json").read_text())
    assert report["state_bytes"] == 2_000_000 and len(report["rounds"]) == 2
    for figures in report["rounds"]:
        assert min(figures.values()) > 0
        assert figures["save_seconds"] < figures["background_seconds"]
        assert figures["longest_step_during"] >= figures["step_seconds_during"]
    page = capsys.readouterr().out
    assert "2 MB of state" in page and "a step during a save" in page


def test_the_state_has_the_size_asked_for_and_cannot_be_compressed() -> None:
    state = checkpoint.make_state(1_600_000)
    assert sum(array.nbytes for array in state.values()) == 1_600_000
    assert len({float(array[0]) for array in state.values()}) == len(state)
