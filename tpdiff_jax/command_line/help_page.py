"""What --help shows: all modes, or one of them with its flags in full."""

import itertools
import os
import sys
import textwrap
from collections.abc import Sequence

from tpdiff_jax.command_line.exit_codes import EXIT_CODES, ExitCode
from tpdiff_jax.command_line.flag_table import FLAGS, MODES, Flag, flags_of, list_flags

PROGRAM = "python -m tpdiff_jax.main"
EXAMPLES = {
    "train": "--config=flow --workdir=runs/flow",
    "sample": "--workdir=runs/flow --labels=3,1,4 --out=clips",
    "evaluate": "--workdir=runs/flow",
    "export": "--workdir=runs/flow --out=weights",
    "prepare": "--config=prepare --workdir=CLIPS --config.prepare.source=VIDEOS",
    "plan": "--config=flow --workdir=runs/plan --topology=v5e:2x4",
    "advise": "--config=flow --workdir=runs/advice",
    "doctor": "--workdir=runs/flow",
    "replay": "--workdir=runs/flow --step=100",
}
"""Mode -> arguments of a command that works as it stands, but for names in capitals."""

_ABOUT_CONFIGS = """\
Every config field can be overridden: --config.train.num_steps=100,
--config.pyramid.frame_strides="(1,)" (vanilla diffusion, the pyramid's twin).
A config file is Python code and is run; only use files you trust.
"""


def help_text(argv: Sequence[str]) -> str:
    """Return what --help shows: all modes, or the one that --mode names with its flags in full."""
    words = [word.lstrip("-") for word in argv[1:]]
    given = [word.partition("=")[2] for word in words if word.startswith("mode=")]
    given += [after for word, after in itertools.pairwise(words) if word == "mode"]
    mode = given[-1] if given else ""
    parts = [_introduce(mode if mode in MODES else FLAGS["mode"].default)]
    parts += [_ABOUT_CONFIGS] if mode not in MODES or "config" in flags_of(mode) else []
    if mode in MODES:
        owned = {name: flag for name, flag in flags_of(mode).items() if name != "mode"}
        parts += [_entry(f"--mode={mode}", MODES[mode]), "Flags:"]
        parts += [_entry(f"--{name}", _describe(mode, flag)) for name, flag in owned.items()]
    else:
        parts += ["Modes, and the flags of each (--mode=MODE --help explains them):"]
        for name, text in MODES.items():
            default = " (the default)" if name == FLAGS["mode"].default else ""
            parts += [_entry(f"--mode={name}", f"{text}{default}. Flags: {list_flags(name)}.")]
        parts += ["Flags:"]
        parts += [_entry(f"--{name}", f"{flag.text}.") for name, flag in FLAGS.items()]
    codes = "; ".join(f"{code.value} {meaning}" for code, meaning in EXIT_CODES.items())
    return "\n".join([*parts, "", textwrap.fill(f"Exit codes: {codes}.", 100)])


def _introduce(mode: str) -> str:
    named = "" if mode == FLAGS["mode"].default else f"--mode={mode} "
    return (
        f"Command line: `{PROGRAM} {named}{EXAMPLES[mode]}`,\n"
        f"where the package is installed also `tpdiff_jax {mode} {EXAMPLES[mode]}`.\n"
        "--version prints the versions of this package and of jax.\n"
    )


def _describe(mode: str, flag: Flag) -> str:
    facts = [f"one of {', '.join(flag.allowed)}"] if flag.allowed else []
    facts += ["required"] if mode in flag.needed_by else []
    facts += [f"default {flag.default}"] if flag.default not in (None, "", ()) else []
    return f"{flag.text} ({'; '.join(facts)})." if facts else f"{flag.text}."


def _entry(name: str, text: str) -> str:
    indent = " " * 22
    body = textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent)
    start = f"  {name}"
    return f"{start:22s}{body.lstrip()}" if len(start) < 22 else f"{start}\n{body}"


def print_help_when_asked(argv: Sequence[str]) -> None:
    """Show modes and flags for --help, and end the process.

    Args:
        argv: of the process.
    """
    if any(arg in ("--help", "-h", "-help") for arg in argv[1:]):
        try:
            print(help_text(argv), flush=True)
        except BrokenPipeError:  # read by `head`; Python would flush once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.DONE)
