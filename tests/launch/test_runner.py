"""Commands: shown as they are called, failures told in one line, no shell in between."""

import shlex
import sys

import pytest

from launch.runner import CommandFailed, Runner, run_program

REAL, DRY = Runner(is_dry_run=False), Runner(is_dry_run=True)
NASTY = 'it\'s; $(touch x) `y` "z" &'


def python(code: str, *arguments: str) -> list[str]:
    """Return a command that runs a little Python."""
    return [sys.executable, "-S", "-c", code, *arguments]


def test_what_is_shown_is_what_is_called(capfd: pytest.CaptureFixture[str]) -> None:
    command = python("import sys; print(sys.argv[1])", NASTY)
    REAL.run(command)
    shown, said = capfd.readouterr().out.splitlines()
    assert shlex.split(shown.removeprefix("$ ")) == command
    assert said == NASTY
    DRY.run(command)
    assert capfd.readouterr().out.splitlines() == [shown]


def test_standard_input_is_shown_as_a_here_document(capfd: pytest.CaptureFixture[str]) -> None:
    REAL.run(python("import sys; print(len(sys.stdin.read()))"), stdin="a: 1\n")
    assert capfd.readouterr().out.splitlines()[1:] == ["a: 1", "EOF", "5"]


def test_a_dry_run_goes_on_with_the_answer_it_is_given() -> None:
    command = python("print('real')")
    assert REAL.read(command, in_dry_run="dry") == "real\n"
    assert DRY.read(command, in_dry_run="dry") == "dry"


def test_output_is_kept_as_it_is() -> None:
    command = python("import sys; sys.stdout.buffer.write(b'1\\r2\\n\\xff\\n')")
    assert REAL.read(command, in_dry_run="") == "1\r2\n\ufffd\n"


def test_failures_name_command_code_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandFailed, match="ended with code 5:\nno luck") as failed:
        REAL.read(
            python("import sys; print('no luck', file=sys.stderr); sys.exit(5)"), in_dry_run=""
        )
    assert failed.value.returncode == 5
    with pytest.raises(CommandFailed, match="ended with code 7"):
        REAL.run(python("import sys; sys.exit(7)"))
    with pytest.raises(CommandFailed, match="no-such-program is not installed here"):
        REAL.run(["no-such-program"])
    monkeypatch.setattr("launch.runner._READ_SECONDS", 0.05)
    with pytest.raises(CommandFailed, match=r"no answer in 0.05 s"):
        REAL.read(python("import time; time.sleep(20)"), in_dry_run="")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("--x=1 is bad"), 2, "prog: error: --x=1 is bad\n"),
        (CommandFailed(["a", "b c"], 9), 1, "prog: a 'b c' ended with code 9\n"),
        (KeyboardInterrupt(), 130, "prog: stopped watching; what was started goes on\n"),
    ],
)
def test_mistakes_become_one_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> int:
        raise error

    assert run_program("prog", body) == code
    assert capsys.readouterr().err == said


def test_other_codes_are_passed_on() -> None:
    assert run_program("prog", lambda: 7) == 7
