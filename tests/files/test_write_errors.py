"""A full disk is one error with one line, whichever writer and whichever library meets it."""

import errno
import os
import pathlib
import resource
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tpdiff_jax import main
from tpdiff_jax.command_line import ExitCode
from tpdiff_jax.files import durable
from tpdiff_jax.files.durable import WriteError, is_disk_error, write_durably, writing
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.report.pages import write_page
from tpdiff_jax.weights.tensor_files import save_tensors, write_folder

BIG = np.random.default_rng(0).uniform(size=10_000)


def write_npz(path: pathlib.Path) -> None:
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, a=BIG)


def write_npy(path: pathlib.Path) -> None:
    with writing(path) as temporary, temporary.open("wb") as file:
        np.save(file, BIG, allow_pickle=False)


WRITERS: dict[str, Callable[[pathlib.Path], None]] = {
    "bytes": lambda path: write_durably(path, bytes(50_000)),
    "json": lambda path: write_json(path, {"a": BIG.tolist()}),
    "page": lambda path: write_page(path, "x" * 50_000),
    "npy": write_npy,
    "npz": write_npz,
    "safetensors": lambda path: save_tensors(path, {"a": BIG}),
    "weights": lambda path: write_folder(path.parent, {"a": BIG.nbytes}, lambda _: BIG),
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can grow beyond 20 kB: writing fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_one_line_code_6_and_nothing_half_written(
    kind: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(WriteError) as error:
        WRITERS[kind](tmp_path / "made" / "file")
    assert "could not be written (" in str(error.value) and "free bytes there: " in str(error.value)
    assert "\n" not in str(error.value)
    assert main.exit_code(error.value) == ExitCode.SAVE_FAILED == 6
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_full_and_broken_disks_are_told_by_number_or_by_the_systems_words(number: int) -> None:
    words = os.strerror(number)
    assert is_disk_error(OSError(number, words))
    assert is_disk_error(RuntimeError(f"write() failed: {words}; writing x"))
    assert main.exit_code(OSError(number, words)) == ExitCode.SAVE_FAILED


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "no"),
        FileNotFoundError(errno.ENOENT, "no"),
        ValueError("10 requested and 3 written"),
        OSError("of its own"),
        KeyError("x"),
    ],
)
def test_other_errors_stay_what_they_are(error: Exception, tmp_path: pathlib.Path) -> None:
    assert not is_disk_error(error)
    with pytest.raises(type(error)) as raised, writing(tmp_path / "file"):
        raise error
    assert raised.value is error and list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_on_a_full_disk_is_told_too(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "mkdir", no_space)
    with pytest.raises(WriteError, match=r"new/file could not be written \(No space left"):
        write_durably(tmp_path / "new" / "file", b"")
    monkeypatch.undo()
    monkeypatch.setattr(durable, "flush", no_space)  # some file systems tell at the end only
    with pytest.raises(WriteError, match="No space left"):
        write_durably(tmp_path / "file", b"x")
    assert list(tmp_path.iterdir()) == []
