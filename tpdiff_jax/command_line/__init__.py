"""What the command line may say: modes, the flags that each of them owns, and the exit codes.

    exit_codes -> flag_table -> parsing (with shipped_configs, config_overrides), help_page

A flag that the mode does not own, or a word that is no flag, is bad input: left unread, it would
start another run than the one asked for. Needs no jax: a mistake is told at once.
"""

from tpdiff_jax.command_line.exit_codes import EXIT_CODES, ExitCode
from tpdiff_jax.command_line.flag_table import (
    DEVICE_MODES,
    FLAGS,
    MODES,
    NEED_A_RUN,
    Flag,
    flags_of,
    list_flags,
)
from tpdiff_jax.command_line.help_page import help_text, print_help_when_asked
from tpdiff_jax.command_line.parsing import Command, parse, read_mode
from tpdiff_jax.command_line.version import print_version_when_asked

__all__ = [
    "DEVICE_MODES",
    "EXIT_CODES",
    "FLAGS",
    "MODES",
    "NEED_A_RUN",
    "Command",
    "ExitCode",
    "Flag",
    "flags_of",
    "help_text",
    "list_flags",
    "parse",
    "print_help_when_asked",
    "print_version_when_asked",
    "read_mode",
]
