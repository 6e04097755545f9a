"""Compiled programs of a test run are gone at its end, or stay where the next run is told."""

import pathlib

import pytest

from tests.programs_folder import KEPT, close_programs, open_programs


def test_without_a_word_every_run_has_a_folder_of_its_own_that_is_gone_at_its_end() -> None:
    one: dict[str, str] = {}
    other = {KEPT: ""}
    folders = [pathlib.Path(open_programs(one)), pathlib.Path(open_programs(other))]
    assert folders[0] != folders[1] and all(folder.is_dir() for folder in folders)
    assert one["JAX_COMPILATION_CACHE_DIR"] == str(folders[0])
    for folder, environment in zip(folders, (one, other), strict=True):
        (folder / "program").write_bytes(b"code")
        close_programs(str(folder), environment)
        assert not folder.exists()


def test_a_kept_folder_is_made_and_keeps_what_is_in_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {KEPT: "to be/kept", "JAX_COMPILATION_CACHE_DIR": "/elsewhere"}
    folder = open_programs(environment)
    assert folder == str(tmp_path / "to be" / "kept"), "commands run in other folders"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == folder
    (pathlib.Path(folder) / "program").write_bytes(b"code")
    close_programs(folder, environment)
    assert open_programs(environment) == folder
    assert (pathlib.Path(folder) / "program").read_bytes() == b"code"
