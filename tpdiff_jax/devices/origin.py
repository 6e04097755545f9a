"""What a run was started with: its command line and the commit of its code."""

import importlib.metadata
import json
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Sequence

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_GIT_SECONDS = 5.0


def run_origin() -> dict[str, str]:
    """Return `command` and `commit` of this process, each where it is known."""
    found = {"command": command_line_text(sys.argv), "commit": code_commit(_PACKAGE)}
    return {name: text for name, text in found.items() if text}


def command_line_text(arguments: Sequence[str]) -> str:
    """Return the command as one would type it; "" for a process that another program started.

    Args:
        arguments: as in `sys.argv`.
    """
    program = pathlib.Path(arguments[0] if arguments else "")
    if program.parts[-2:] == (_PACKAGE.name, "main.py"):
        return shlex.join(["python", "-m", f"{_PACKAGE.name}.main", *arguments[1:]])
    if program.stem == _PACKAGE.name:
        return shlex.join([_PACKAGE.name, *arguments[1:]])
    return ""


def code_commit(package: pathlib.Path) -> str:
    """Return the commit of a package's code; "" where nothing tells.

    Args:
        package: its folder. One at the top of a git checkout has the checkout's commit, with
            ` and changed files` where tracked files differ from it; an installed one has that of
            the repository which it was installed from.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    if not top or pathlib.Path(top).resolve() != package.parent:
        return _installed_commit(package.name)
    commit = _git(package, "rev-parse", "HEAD")
    has_changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    return f"{commit} and changed files" if commit and has_changes else commit


def _git(folder: pathlib.Path, *arguments: str) -> str:
    """What git prints; "" where it is missing, slow or refuses."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _installed_commit(name: str) -> str:
    """The commit that pip has noted down (PEP 610)."""
    try:
        text = importlib.metadata.distribution(name).read_text("direct_url.json")
        noted = json.loads(text or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
    return str((noted.get("vcs_info") or {}).get("commit_id", ""))
