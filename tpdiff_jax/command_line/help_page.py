"""What --help shows: all modes, or one of them with its flags in full."""

import textwrap
from collections.abc import Sequence

from tpdiff_jax.command_line.exit_codes import EXIT_CODES
from tpdiff_jax.command_line.flag_table import FLAGS, MODES, Flag, flags_of, list_flags

PROGRAM = "python -m tpdiff_jax.main"
_INTRODUCTION = f"""\
Command line: `{PROGRAM} --config=flow --workdir=runs/flow`, where the package
is installed also `tpdiff_jax train --config=flow --workdir=runs/flow`.

Every config field can be overridden: --config.train.num_steps=100,
--config.pyramid.frame_strides="(1,)" (vanilla diffusion, the pyramid's twin).
A config file is Python code and is run; only use files you trust.
"""


def help_text(argv: Sequence[str]) -> str:
    """Return what --help shows: all modes, or the one that --mode names with its flags in full."""
    given = [arg for arg in argv[1:] if arg.lstrip("-").startswith("mode=")]
    mode = given[-1].partition("=")[2] if given else ""
    parts = [_INTRODUCTION]
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
