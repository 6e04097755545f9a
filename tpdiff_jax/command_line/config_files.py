"""Running a config file: what it makes, or one line with its name, the line in it and the error."""

import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from tpdiff_jax.command_line.config_overrides import explain_unknown_field, flat_fields

_MODULE = "config_config"  # as ml_collections calls it


def run_config_file(path: pathlib.Path) -> ConfigDict:
    """Run a config file and return what its `get_config` makes.

    Args:
        path: a file that is there, with or without `.py` at its end.

    Raises:
        ValueError: naming the file: what goes wrong in it, a missing `get_config`, or one that
            returns something else than fields.
    """
    try:
        config = _run(path)
    except SyntaxError as error:
        raise ValueError(f"--config is no Python that can be read: {error}") from error
    except (Exception, SystemExit) as error:  # a config file is a program: it may raise anything
        raise ValueError(f"--config={path}{_explain(error, path)}") from error
    if not isinstance(config, ConfigDict):
        kind = "nothing" if config is None else f"a {type(config).__name__}"
        raise ValueError(f"--config={path}: get_config() returned {kind}; allowed: a ConfigDict")
    if not len(config):
        raise ValueError(f"--config={path}: get_config() returned a ConfigDict without fields")
    return config


def _run(path: pathlib.Path) -> Any:
    loader = _FreshLoader(_MODULE, str(path))
    spec = importlib.util.spec_from_loader(_MODULE, loader)
    if spec is None:
        raise ImportError("it cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # where dataclasses and the like look for their own module
    loader.exec_module(module)
    if not callable(get_config := getattr(module, "get_config", None)):
        raise _MissingFunctionError("it has no function get_config(), which returns a ConfigDict")
    return get_config()


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Python's own without `__pycache__`, which does not see a second change within a second."""

    def path_stats(self, path: Any) -> Any:
        """Refuse, so that the file itself is read."""
        raise OSError(f"compiled forms of {path} are not asked for")


class _MissingFunctionError(Exception):
    """The message says all: neither a line of the file nor a type belongs to it."""


def _explain(error: BaseException, path: pathlib.Path) -> str:
    """Return what stands behind the name of the file."""
    if isinstance(error, _MissingFunctionError):
        return f": {error}"
    steps = list(traceback.walk_tb(error.__traceback__))
    own = [step for step in steps if _is_same(step[0].f_code.co_filename, path)]
    where = f", line {own[-1][1]}" if own else ""
    if own and (told := _explain_missing_field(error, own[-1][0].f_locals)):
        return f"{where}: {told}"
    text = " ".join(str(error).split())
    return f"{where}: {type(error).__name__}{': ' if text else ''}{text}"


def _is_same(file: str, path: pathlib.Path) -> bool:
    return os.path.realpath(file) == os.path.realpath(path)


def _explain_missing_field(error: BaseException, variables: dict[str, Any]) -> str | None:
    """Return the line about a field that a config lacks; None for any other error.

    Args:
        error: what was raised.
        variables: of the function in the file, among which the whole config may be.
    """
    for frame in _innermost_first(error):
        group, key = frame.get("self"), frame.get("key")
        if isinstance(group, ConfigDict) and isinstance(key, str) and key not in group:
            break
    else:
        return None
    for root in variables.values():
        if isinstance(root, ConfigDict) and (prefix := _prefix_of(group, root)) is not None:
            name = prefix + key
            return f"{name}: {explain_unknown_field(name, dict(flat_fields(root)))}"
    return f"{key}: {explain_unknown_field(key, dict(flat_fields(group)))}"


def _innermost_first(error: BaseException) -> Iterator[dict[str, Any]]:
    """Yield the variables of every function that an error, or the one behind it, went through."""
    if error.__context__ is not None and isinstance(error, (AttributeError, KeyError)):
        yield from _innermost_first(error.__context__)
    if isinstance(error, (AttributeError, KeyError)):
        for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
            yield frame.f_locals


def _prefix_of(group: ConfigDict, root: ConfigDict, prefix: str = "") -> str | None:
    """Return what stands before a group's fields, such as `train.`; None if it is not there."""
    if group is root:
        return prefix
    for name, value in root.items():
        if isinstance(value, ConfigDict):
            found = _prefix_of(group, value, f"{prefix}{name}.")
            if found is not None:
                return found
    return None
