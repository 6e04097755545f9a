"""Fields of a ConfigDict by name, checked, and none of them left unread."""

import math
from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from tpdiff_jax.checks import (
    check_choice,
    check_no_address,
    check_path_or_bucket,
    did_you_mean,
)
from tpdiff_jax.run_folder.run_config import flat_fields

_MAY_BE_BUCKETS = ("data.folder",)


class ConfigReader:
    """Reads fields of a ConfigDict and remembers which, so that unknown ones can be refused."""

    def __init__(self, config: ConfigDict) -> None:
        """Read from `config`."""
        self._fields = dict(flat_fields(config))
        self._read: set[str] = set()

    def __call__(self, name: str) -> Any:
        """Return the field `group.field`.

        Raises:
            ValueError: when the config lacks it, or it is NaN, infinite or an address.
        """
        if name not in self._fields:
            raise ValueError(f"the config lacks the field {name}")
        self._read.add(name)
        value = self._fields[name]
        entries = value if isinstance(value, tuple) else (value,)
        if any(isinstance(entry, float) and not math.isfinite(entry) for entry in entries):
            raise ValueError(f"{name}={value} must be finite")
        if isinstance(value, str):  # here, so that no field that names a folder can be left out
            (check_path_or_bucket if name in _MAY_BE_BUCKETS else check_no_address)(name, value)
        return value

    def choice(self, name: str, allowed: Collection[str]) -> str:
        """Return a field that names one of a few things.

        Raises:
            ValueError: when it is none of `allowed`.
        """
        value = self(name)
        check_choice(name, value, tuple(allowed))
        return value

    def numbers(self, name: str, kind: type[int] | type[float]) -> tuple[Any, ...]:
        """Return a tuple field with every entry as `kind`.

        Raises:
            ValueError: when it holds anything but such numbers.
        """
        value = self(name)
        entries = value if isinstance(value, tuple) else (value,)
        for entry in entries:
            is_number = isinstance(entry, int | float) and not isinstance(entry, bool)
            if not is_number or kind(entry) != entry:
                what = "whole numbers" if kind is int else "numbers"
                raise ValueError(f"{name}={value!r} must be a tuple of {what}")
        return tuple(map(kind, entries))

    def group(self, group: str, *names: str) -> dict[str, Any]:
        """Return `{name: value}` of several fields of one group."""
        return {name: self(f"{group}.{name}") for name in names}

    def rest_of_group(self, group: str, *read_elsewhere: str) -> dict[str, Any]:
        """Return `{name: value}` of a whole group but for some fields: a constructor's arguments.

        The constructor then decides which names exist.
        """
        prefix = f"{group}."
        names = [name.removeprefix(prefix) for name in self._fields if name.startswith(prefix)]
        return self.group(group, *(name for name in names if name not in read_elsewhere))

    def given_of_group(self, group: str, *names: str) -> dict[str, Any]:
        """Return `{name: value}` of those fields of one group that the config has."""
        return self.group(group, *(name for name in names if f"{group}.{name}" in self._fields))

    def check_all_known(self) -> None:
        """Raise ValueError naming every field that nothing reads, with those that were meant."""
        if unread := [name for name in self._fields if name not in self._read]:
            named = [f"unknown config field {n}{did_you_mean(n, self._read)}" for n in unread]
            raise ValueError("; ".join(named))
