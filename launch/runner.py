"""Running commands, or printing them: what a dry run shows is what a real one calls.

Commands are lists and never pass through a shell here. A dry run prints them quoted for one
(`$ ` in front, notes after `# `) and goes on with the answers that a caller gives for it.
"""

import dataclasses
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tpdiff_jax.command_line import ExitCode

EXIT_FAILED = 1
PATIENCE = 10  # failed questions in a row before watching ends: networks have bad minutes
_NOT_FOUND, _TIMED_OUT = 127, 124  # as shells and `timeout` say it
_READ_SECONDS = 600.0  # a connection to a machine that has gone may never answer
_STDERR_TAIL = 2000


class CommandFailed(Exception):
    """A command ended with another code than 0.

    Attributes:
        returncode: its exit code.
        stderr: the end of what it said.
    """

    def __init__(self, command: Sequence[str], returncode: int, stderr: str = "") -> None:
        """Describe the failure of `command`."""
        self.returncode = returncode
        self.stderr = stderr.strip()[-_STDERR_TAIL:]
        said = f":\n{self.stderr}" if self.stderr else ""
        super().__init__(f"{shlex.join(command)} ended with code {returncode}{said}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs commands and shows them.

    Attributes:
        is_dry_run: whether to show them only.
    """

    is_dry_run: bool

    def run(self, command: Sequence[str], *, stdin: str | None = None) -> None:
        """Run a command whose output belongs to the user.

        Args:
            command: program and arguments.
            stdin: text for its standard input.

        Raises:
            CommandFailed: when it ends with another code than 0.
        """
        self._show(command, stdin)
        if not self.is_dry_run:
            _execute(command, input=None if stdin is None else stdin.encode())

    def read(self, command: Sequence[str], *, in_dry_run: str, is_quiet: bool = False) -> str:
        """Return what a command prints.

        Args:
            command: program and arguments.
            in_dry_run: the answer that a dry run goes on with.
            is_quiet: not shown in a real run; for what is asked again and again.

        Raises:
            CommandFailed: when it ends with another code than 0, or not in time.
        """
        if self.is_dry_run or not is_quiet:
            self._show(command)
        if self.is_dry_run:
            return in_dry_run
        return _execute(command, capture_output=True, timeout=_READ_SECONDS)

    def note(self, text: str) -> None:
        """Say what happens between commands."""
        print(f"# {text}", flush=True)

    def sleep(self, seconds: float) -> None:
        """Wait; a dry run does not."""
        if not self.is_dry_run:
            time.sleep(seconds)

    def _show(self, command: Sequence[str], stdin: str | None = None) -> None:
        line = f"$ {shlex.join(command)}"
        # A here-document, so that the printed lines can be pasted as they are.
        print(line if stdin is None else f"{line} <<'EOF'\n{stdin}EOF", flush=True)


def _execute(command: Sequence[str], **options: Any) -> str:
    """Return standard output where it is captured; decoding it here keeps carriage returns."""
    try:
        done = subprocess.run(command, check=False, **options)
    except FileNotFoundError as error:
        raise CommandFailed(command, _NOT_FOUND, f"{command[0]} is not installed here") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(command, _TIMED_OUT, f"no answer in {error.timeout:g} s") from error
    if done.returncode:
        raise CommandFailed(command, done.returncode, _decode(done.stderr))
    return _decode(done.stdout)


def _decode(captured: bytes | None) -> str:
    return (captured or b"").decode(errors="replace")


def run_program(
    program: str,
    body: Callable[[], int],
    at_ctrl_c: str = "stopped watching; what was started goes on",
) -> int:
    """Return the exit code of a launcher: its own, or that of a mistake, said in one line.

    Args:
        program: the launcher's name.
        body: what it does.
        at_ctrl_c: what is said when Ctrl-C ends it.

    Returns:
        What `body` returned; 2 for bad input, 1 for a failed command, 130 after Ctrl-C.
    """
    try:
        return body()
    except ValueError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT
    except CommandFailed as failure:
        print(f"{program}: {failure}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"{program}: {at_ctrl_c}", file=sys.stderr)
        return ExitCode.INTERRUPTED
