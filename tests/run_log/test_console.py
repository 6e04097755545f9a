"""The terminal shows this package's lines and other libraries' warnings, without tracebacks."""

import logging
import pathlib
import sys

import pytest

from tpdiff_jax.run_log import console

OURS = str(pathlib.Path(console.__file__).parents[1] / "run_folder" / "checkpoints.py")


def record(path: str, level: int) -> logging.LogRecord:
    try:
        raise OSError("disk full")
    except OSError:
        return logging.LogRecord("absl", level, path, 1, "text", None, sys.exc_info())


@pytest.mark.parametrize(
    ("path", "level", "is_shown"),
    [
        (OURS, logging.INFO, True),
        ("/lib/orbax/manager.py", logging.INFO, False),
        ("/lib/orbax/manager.py", logging.WARNING, True),
    ],
)
def test_other_libraries_speak_only_to_warn(path: str, level: int, is_shown: bool) -> None:
    assert console.is_worth_showing(record(path, level)) is is_shown


def test_only_our_own_records_keep_a_traceback() -> None:
    ours, theirs = record(OURS, logging.ERROR), record("/lib/orbax/manager.py", logging.ERROR)
    for item in (ours, theirs):
        assert console.is_worth_showing(item)
    assert "disk full" in logging.Formatter().format(ours)
    assert logging.Formatter().format(theirs) == "text"


def lose(error: Exception) -> None:
    """Raise an error where nobody can catch it."""

    class Lossy:
        def __del__(self) -> None:
            raise error

    Lossy()


@pytest.mark.parametrize(
    ("error", "is_shown"),
    [
        (RuntimeError("Event loop is closed"), False),
        (RuntimeError("another"), True),
        (ValueError("Event loop is closed"), True),
    ],
)
def test_only_the_echo_of_a_failed_save_is_kept_quiet(
    error: Exception,
    is_shown: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", console.show_unraisable)
    lose(error)
    assert (str(error) in capsys.readouterr().err) is is_shown
