"""Where a bench or an experiment writes is looked at before it measures for an hour."""

import argparse
import pathlib

import pytest

from bench import cost
from experiments import compare
from experiments.command_line import output_file, output_folder, split_seeds


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "file"
    path.touch()
    return path


def test_folders_there_and_new_are_taken(tmp_path: pathlib.Path) -> None:
    for path in (tmp_path, tmp_path / "new", tmp_path / "new" / "deeper"):
        assert output_folder(str(path)) == path and output_file(str(path)) == path
    assert output_folder("runs/new") == pathlib.Path("runs/new")
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


def test_a_leading_tilde_is_the_users_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in (output_file, output_folder):
        assert kind("~/out") == tmp_path / "out"


def test_a_file_is_replaced_where_a_file_is_written_and_no_folder(file: pathlib.Path) -> None:
    assert output_file(str(file)) == file
    with pytest.raises(argparse.ArgumentTypeError, match="no folder that can be written"):
        output_folder(str(file))


@pytest.mark.parametrize("kind", [output_file, output_folder])
def test_what_lies_below_a_file_or_in_a_bucket_is_refused(kind, file: pathlib.Path) -> None:
    for text in (f"{file}/below", f"{file}/far/below"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{file} is no folder"):
            kind(text)
    with pytest.raises(argparse.ArgumentTypeError, match="--out=gs://bucket"):
        kind("gs://bucket/run")


@pytest.mark.parametrize("program", [cost, compare])
def test_programs_end_with_code_2_before_they_start(
    program, file: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = program.main([f"--out={file}"])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and "no folder that can be written" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", ",", "0,0", "1,01", "a", "1.5"])
def test_seeds_are_whole_numbers_that_differ(text: str) -> None:
    assert split_seeds("2,0,-1") == [2, 0, -1]
    with pytest.raises(ValueError, match=f"--seeds={text}; allowed: whole numbers that differ"):
        split_seeds(text)
