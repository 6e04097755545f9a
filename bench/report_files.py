"""What a bench or a table writes: how and where it was measured, figures, and a page to read."""

import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tpdiff_jax.devices.facts import device_facts, package_versions
from tpdiff_jax.devices.origin import run_origin
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import write_json


def facts(program: str, arguments: Sequence[str], package: str = "bench") -> dict[str, Any]:
    """Return the command, the commit of the code, the devices and the versions behind figures.

    Args:
        program: the module that was run.
        arguments: of its command line.
        package: that holds the module.
    """
    return {
        **run_origin(),
        "command": command_text(program, arguments, package),
        "device": device_facts(),
        "versions": package_versions(),
    }


def command_text(program: str, arguments: Sequence[str], package: str = "bench") -> str:
    """Return a command as one types it.

    Args:
        program: the module that was run.
        arguments: of its command line.
        package: that holds the module.
    """
    return shlex.join(["python", "-m", f"{package}.{program}", *arguments])


def write_report(out: pathlib.Path, program: str, report: Mapping[str, Any], page: str) -> None:
    """Write PROGRAM.json and PROGRAM.md into a folder, and print the page."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{program}.json", report)
    write_durably(out / f"{program}.md", page)
    print(page)
