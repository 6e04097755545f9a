"""From arguments to a mode and its values, or one line about what is wrong with them.

Only the flags of the mode are defined, so a flag of another one cannot go unread, and a config file
that the mode does not read is not even opened.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from tpdiff_jax.checks import (
    at_home,
    check_at_least,
    check_choice,
    check_no_address,
    check_path_or_bucket,
    did_you_mean,
)
from tpdiff_jax.command_line.config_files import run_config_file
from tpdiff_jax.command_line.config_overrides import explain_override, flat_fields
from tpdiff_jax.command_line.flag_table import (
    FLAGS,
    MODES,
    RENAMED_FLAGS,
    Flag,
    flags_of,
    list_flags,
)
from tpdiff_jax.command_line.shipped_configs import find_config

_MAY_BE_PATHS = ("path", "place", "cache")


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
    argv = _with_flag_files(argv)
    _refuse_blanks(argv)
    mode = _read_mode(argv)
    owned = flags_of(mode)
    config = None
    if "config" in owned:
        given, argv = _take_config(argv, owned)
        config = None if given is None else run_config_file(find_config(at_home(given)))
    fields = {} if config is None else dict(flat_fields(config))  # before they are overridden
    try:
        values = _define(owned, argv, config)
        _, *words = values(list(argv))
    except flags.UnrecognizedFlagError as error:
        raise ValueError(_explain_unknown(mode, error.flagname)) from error
    # ml_collections raises many types: AttributeError for an unknown field, TypeError and
    # ValueError for a value of the wrong type.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(explain_override(error, argv, fields)) from error
    if words:
        raise ValueError(f"{words[0]!r} is no flag; --mode={mode} has {list_flags(mode)}")
    if config is not None:
        _put_home_into_fields(config)
    found = {name: values[name].value for name in owned}
    for name, flag in owned.items():
        if flag.kind in _MAY_BE_PATHS and (path := found[name]) is not None:
            found[name] = at_home(str(path))
    for name, flag in owned.items():
        _check(mode, name, flag, found[name])
    return Command(mode, found)


def read_mode(argv: Sequence[str]) -> str | None:
    """Return the mode of a command line before all of it is read; None where there is no such.

    Args:
        argv: the program's name and its arguments.
    """
    try:
        return _read_mode(_with_flag_files(argv))
    except ValueError:
        return None


def _new_values() -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # else what stands behind a word that is no flag is not read
    return values


def _with_flag_files(argv: Sequence[str]) -> list[str]:
    """Put the words of every --flagfile in its place."""
    try:
        return [*argv[:1], *_new_values().read_flags_from_files(list(argv[1:]), force_gnu=False)]
    except flags.Error as error:
        raise ValueError(str(error)) from error


def _refuse_blanks(argv: Sequence[str]) -> None:
    """Refuse `--config= smoke`, whose value the shell takes for a word of its own."""
    for word, following in itertools.pairwise(argv[1:]):
        if re.fullmatch(r"--?\w[\w.]*=", word) and re.match(r"[^-]", following):
            raise ValueError(
                f"{word} {following} has a blank behind the =; write {word}{following}"
            )


def _read_mode(argv: Sequence[str]) -> str:
    """Return the mode, before its flags are known."""
    values = _new_values()
    flags.DEFINE_string("mode", None, "", flag_values=values)
    try:
        values(list(argv), known_only=True)
    except flags.Error as error:
        raise ValueError(str(error)) from error
    mode = FLAGS["mode"].default if values.mode is None else values.mode
    check_choice("--mode", mode, MODES)
    if any(re.match(r"--?undefok(=|$)", argument) for argument in argv):
        raise ValueError(_explain_unknown(mode, "undefok"))  # absl would leave flags unread
    return mode


def _take_config(argv: Sequence[str], owned: Mapping[str, Flag]) -> tuple[str | None, list[str]]:
    """Return what --config names, the last one if there are several, and all other words."""
    config, kept, words = None, list(argv[:1]), list(argv[1:])
    while words and words[0] != "--":
        word = words.pop(0)
        name, is_joined, value = re.sub("^--?", "", word).partition("=")
        flag = owned.get(name) if word.startswith("-") else None
        takes_next = flag is not None and flag.kind != "switch" and not is_joined
        if flag is None or flag.kind != "config":
            kept += [word, *(words.pop(0) for _ in words[:1] if takes_next)]
        elif takes_next and not words:
            raise ValueError(f"Missing value for flag --{name}")
        else:
            config = words.pop(0) if takes_next else value
    return config, kept + words


def _define(
    owned: Mapping[str, Flag], argv: Sequence[str], config: ConfigDict | None
) -> flags.FlagValues:
    values = _new_values()
    define: dict[str, Callable[..., Any]] = {
        "text": flags.DEFINE_string,
        "path": flags.DEFINE_string,
        "place": flags.DEFINE_string,
        "cache": flags.DEFINE_string,
        "integer": flags.DEFINE_integer,
        "number": flags.DEFINE_float,
        "list": flags.DEFINE_list,
        "repeated": flags.DEFINE_multi_string,
        "switch": flags.DEFINE_bool,
        "config": flags.DEFINE_string,  # where none is given
    }
    for name, flag in owned.items():
        if flag.kind == "config" and config is not None:
            config_flags.DEFINE_config_dict(
                name, config, flag.text, flag_values=values, lock_config=True, sys_argv=list(argv)
            )
        else:
            default = list(flag.default) if isinstance(flag.default, tuple) else flag.default
            define[flag.kind](name, default, flag.text, flag_values=values)
    return values


def _put_home_into_fields(config: ConfigDict) -> None:
    for name, value in list(flat_fields(config)):
        if isinstance(value, str) and re.match(r"~(/|$)", value):
            config.update_from_flattened_dict({name: at_home(value)})


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
