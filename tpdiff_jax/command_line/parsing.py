"""From arguments to a mode and its values, or one line about what is wrong with them.

Only the flags of the mode are defined, so a flag of another one cannot go unread, and a config file
that the mode does not read is not even opened.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from tpdiff_jax.checks import (
    check_at_least,
    check_choice,
    check_no_address,
    check_path_or_bucket,
    did_you_mean,
)
from tpdiff_jax.command_line.config_overrides import explain_override
from tpdiff_jax.command_line.flag_table import (
    FLAGS,
    MODES,
    RENAMED_FLAGS,
    Flag,
    flags_of,
    list_flags,
)
from tpdiff_jax.command_line.shipped_configs import find_config


class Command(NamedTuple):
    """A command line that has been read.

    Attributes:
        mode: what to do.
        values: flag -> value, of the flags that the mode owns.
    """

    mode: str
    values: Mapping[str, Any]

    def of(self, *names: str) -> dict[str, Any]:
        """Return `{name: value}` of the flags that the mode owns."""
        return {name: self.values[name] for name in names if name in self.values}


def parse(argv: Sequence[str]) -> Command:
    """Read a command line.

    Args:
        argv: the program's name and its arguments.

    Raises:
        ValueError: naming the flag, for any mistake, those in config overrides included.
    """
    mode, config = _read_mode(argv)
    if config is not None and mode in FLAGS["config"].modes:
        argv = _with_config_file(config, argv)
    owned = flags_of(mode)
    values = _define(owned, argv)
    try:
        _, *words = values(list(argv))
    except flags.UnrecognizedFlagError as error:
        raise ValueError(_explain_unknown(mode, error.flagname)) from error
    # ml_collections raises many types: AttributeError for an unknown field, TypeError and
    # ValueError for a value of the wrong type, OSError for a missing file.
    except SyntaxError as error:
        raise ValueError(f"--config is no Python that can be read: {error}") from error
    except (flags.Error, AttributeError, KeyError, TypeError, OSError) as error:
        raise ValueError(explain_override(error, argv)) from error
    if words:
        raise ValueError(f"{words[0]!r} is no flag; --mode={mode} has {list_flags(mode)}")
    found = {name: values[name].value for name in owned}
    for name, flag in owned.items():
        _check(mode, name, flag, found[name])
    return Command(mode, found)


def _new_values() -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # else what stands behind a word that is no flag is not read
    return values


def _read_mode(argv: Sequence[str]) -> tuple[str, str | None]:
    """Return the mode, before its flags are known, and what --config names."""
    values = _new_values()
    for name in ("mode", "config"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    try:
        values(list(argv), known_only=True)
    except flags.Error as error:
        raise ValueError(str(error)) from error
    mode = FLAGS["mode"].default if values.mode is None else values.mode
    check_choice("--mode", mode, MODES)
    if any(re.match(r"--?undefok(=|$)", argument) for argument in argv):
        raise ValueError(_explain_unknown(mode, "undefok"))  # absl would leave flags unread
    return mode, values.config


def _with_config_file(config: str, argv: Sequence[str]) -> list[str]:
    """Put the file in place of a config's name, once it is there."""
    path = find_config(config)  # ml_collections would say much later that there is none
    if str(path) == config:
        return list(argv)
    given = (f"--config={config}", f"-config={config}")
    replaced = [f"--config={path}" if argument in given else argument for argument in argv]
    for index, argument in enumerate(argv[:-1]):
        if argument in ("--config", "-config"):
            replaced[index + 1] = str(path)
    return replaced


def _define(owned: Mapping[str, Flag], argv: Sequence[str]) -> flags.FlagValues:
    values = _new_values()
    define: dict[str, Callable[..., Any]] = {
        "text": flags.DEFINE_string,
        "path": flags.DEFINE_string,
        "place": flags.DEFINE_string,
        "integer": flags.DEFINE_integer,
        "list": flags.DEFINE_list,
        "repeated": flags.DEFINE_multi_string,
        "switch": flags.DEFINE_bool,
    }
    for name, flag in owned.items():
        if flag.kind == "config":
            config_flags.DEFINE_config_file(
                name, None, flag.text, flag_values=values, lock_config=True, sys_argv=list(argv)
            )
        else:
            default = list(flag.default) if isinstance(flag.default, tuple) else flag.default
            define[flag.kind](name, default, flag.text, flag_values=values)
    return values


def _check(mode: str, name: str, flag: Flag, value: Any) -> None:
    if mode in flag.needed_by and value in (None, ""):
        raise ValueError(f"--{name} is required by --mode={mode}")
    if value is None:
        return
    if flag.kind == "path":
        check_no_address(f"--{name}", value)
    if flag.kind == "place":
        check_path_or_bucket(f"--{name}", value)
    if flag.allowed:
        check_choice(f"--{name}", value, flag.allowed)
    if flag.least is not None:
        check_at_least(f"--{name}", value, flag.least)


def _explain_unknown(mode: str, name: str) -> str:
    """Return one line about a flag that the mode does not have."""
    if name in RENAMED_FLAGS:
        return f"--{name} is called --{RENAMED_FLAGS[name]} now"
    if name.startswith("config.") and mode in FLAGS["config"].modes:
        return f"--{name} overrides a field of --config, which is missing"
    known = (FLAGS.get(part) for part in (name, name.partition(".")[0], name.removeprefix("no")))
    owners = next((f" but of {', '.join(flag.modes)}" for flag in known if flag), "")
    hint = "" if owners else did_you_mean(f"--{name}", (f"--{flag}" for flag in flags_of(mode)))
    if "." in name and not owners and mode in FLAGS["config"].modes:
        hint = f"; a field of the config is set by --config.{name}=VALUE"
    return f"--{name} is no flag of --mode={mode}{owners}; it has {list_flags(mode)}{hint}"
