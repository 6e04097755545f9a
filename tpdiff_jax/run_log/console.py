"""What appears on the terminal: this package's lines, and other libraries' warnings only."""

import logging
import pathlib
import sys

from absl import logging as absl_logging

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def set_up_console() -> None:
    """Show this package's information lines; of all other libraries warnings and worse.

    Orbax reports every phase of every save at the same level as our own lines; they would bury
    the few lines that a user reads.
    """
    absl_logging.set_verbosity(absl_logging.INFO)
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(is_worth_showing)
    sys.unraisablehook = show_unraisable


def is_worth_showing(record: logging.LogRecord) -> bool:
    """Whether a log record belongs on the terminal; other libraries' loses its traceback.

    Orbax logs pages of it when a disk is full, before our one line says so.
    """
    is_ours = _PACKAGE in pathlib.Path(record.pathname).resolve().parents
    if not is_ours:
        record.exc_info = record.exc_text = None
    return is_ours or record.levelno >= logging.WARNING


def show_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Show an error that had no caller to go to, but for one: the echo of a save that failed.

    When a save fails, its event loop closes while writes are still on their way, and each of them
    complains, a hundred tracebacks in all; the failure itself reaches us as an error.
    """
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)
