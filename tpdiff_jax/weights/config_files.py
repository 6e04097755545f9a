"""The config.json beside published weights: what it says must be so here."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tpdiff_jax.files.json_files import read_json


def check_config_file(
    path: pathlib.Path,
    config: Any,
    fields: Iterable[tuple[str, str]],
    made_of: Mapping[str, str] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> None:
    """Compare a config.json with the config of a network; entries that it lacks are not compared.

    Args:
        path: the file.
        config: of the network.
        fields: entries of the file, and fields or properties of `config` that they must equal.
        made_of: what in a config decides a property, to end the error's sentence.
        fixed: entries of the file that only ever have one value here, and that value.

    Raises:
        ValueError: naming the file, the entry, its value and what is needed.
    """
    found = {name: _frozen(value) for name, value in read_json(path).items()}
    for name, ours in fields:
        expected = getattr(config, ours)
        if name in found and found[name] != expected:
            raise ValueError(
                f"{path} says {name}={found[name]}, the config has {ours}={expected}"
                f"{(made_of or {}).get(ours, '')}"
            )
    for name, only in (fixed or {}).items():
        if name in found and found[name] != only:
            raise ValueError(f"{path} says {name}={found[name]!r}; this network has {only!r}")


def shape_of_fields(
    path: pathlib.Path, fields: Mapping[str, Any], names: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    """Return what a config.json says of a shape, under the names of a config here.

    Args:
        path: of the file, for errors.
        fields: its entries.
        names: entries and the field that each stands for; several may stand for one.

    Returns:
        Fields that some entry states; lists as tuples.

    Raises:
        ValueError: when two entries for one field differ.
    """
    shape: dict[str, Any] = {}
    for name, ours in names:
        value = fields.get(name)
        if value is not None and shape.setdefault(ours, _frozen(value)) != _frozen(value):
            raise ValueError(f"{path} says {name}={value}, elsewhere {shape[ours]}")
    return shape


def check_only_read_as(
    path: pathlib.Path, fields: Mapping[str, Any], only: Iterable[tuple[str, Sequence[Any]]]
) -> None:
    """Refuse a config.json that says what another network's would.

    Args:
        path: of the file, for errors.
        fields: its entries.
        only: entries and the values that mean this network, the usual one first; one that the file
            lacks has that.

    Raises:
        ValueError: naming the entry, its value and the usual one.
    """
    for name, allowed in only:
        if fields.get(name, allowed[0]) not in allowed:
            raise ValueError(f"{path} says {name}={fields[name]!r}; {allowed[0]!r} is read")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
