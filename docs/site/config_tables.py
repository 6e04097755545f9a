"""The reference of config fields: defaults from the configs, words from their comments."""

import ast
import importlib
import io
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

BASE = "flow"


class Config(NamedTuple):
    """A config and what its file says about its fields."""

    header: str  # the first line of its docstring
    values: dict[str, object]
    comments: dict[str, str]
    builds_on: list[str]  # configs that its file imports


def config_tables(folder: pathlib.Path) -> str:
    """Return Markdown: all fields of the base config, then what each other one has of its own.

    Args:
        folder: of the package `configs`.
    """
    configs = _read(folder)
    base = configs[BASE].values
    parts = [f"## configs/{BASE}.py"]
    for group in dict.fromkeys(field.partition(".")[0] for field in base):
        own = [field for field in base if field.startswith(f"{group}.")]
        parts += [f"### {group}", _table(own, configs, BASE)]
    for name in (name for name in configs if name != BASE):
        values, builds_on = configs[name].values, configs[name].builds_on
        nearest = BASE if values.keys() & base.keys() else next(iter(builds_on), None)
        there = configs[nearest].values if nearest else {}
        own = [f for f, value in values.items() if f not in there or there[f] != value]
        parts += [f"## configs/{name}.py", configs[name].header]
        parts += [f"Other than in `configs/{nearest}.py`, or not there:"] if nearest else []
        parts += [_table(own, configs, name)] if own else []
    return "\n\n".join(parts)


def field_comments(source: str) -> dict[str, str]:
    """Return {GROUP.FIELD: comment or ""} of a config's source, in its order.

    Args:
        source: Python that assigns to `config.GROUP.FIELD`, or to `GROUP.FIELD`. The comment is
            the lines of comment above it and the one behind the value.
    """
    behind: dict[int, str] = {}
    alone: dict[int, str] = {}
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            number, column = token.start
            found = behind if lines[number - 1][:column].strip() else alone
            found[number] = token.string.lstrip("#").strip()
    comments = {}
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    for node in sorted(nodes, key=lambda node: node.lineno):
        if isinstance(node.targets[0], ast.Attribute):
            group, _, field = ast.unparse(node.targets[0]).removeprefix("config.").rpartition(".")
            first = node.lineno
            while first - 1 in alone:
                first -= 1
            words = [alone[line] for line in range(first, node.lineno)]
            words += [behind[line] for line in (node.end_lineno,) if line in behind]
            if group:
                comments[f"{group}.{field}"] = " ".join(words)
    return comments


def _read(folder: pathlib.Path) -> dict[str, Config]:
    sources = {path.stem: path.read_text() for path in sorted(folder.glob("[a-z]*.py"))}
    base_order = field_comments(sources[BASE])
    configs = {}
    sys.path.insert(0, str(folder.parent))  # mkdocs takes back what its hooks put there
    for name, source in sources.items():
        comments = field_comments(source)
        header = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        builds_on = re.findall(r"^from configs(?:\.| import )(\w+)", source, re.M)
        values = _values(name, [*comments, *base_order])
        configs[name] = Config(header, values, comments, builds_on)
    sys.path.remove(str(folder.parent))
    return configs


def _values(name: str, order: Sequence[str]) -> dict[str, object]:
    """Values of a config by field: those of `order` first, as they stand there."""
    config = importlib.import_module(f"configs.{name}").get_config()
    found = {
        f"{group}.{field}": config[group][field] for group in config for field in config[group]
    }
    names = dict.fromkeys([*(field for field in order if field in found), *found])
    return {field: found[field] for field in names}


def _table(fields: Sequence[str], configs: Mapping[str, Config], name: str) -> str:
    rows = ["| field | value | |", "|---|---|---|"]
    for field in fields:
        text = next(filter(None, _comments(field, configs, name)), "").replace("|", "\\|")
        shown = repr(configs[name].values[field]).replace("|", "\\|")
        rows.append(f"| `{field}` | `{shown}` | {text} |")
    return "\n".join(rows)


def _comments(field: str, configs: Mapping[str, Config], name: str) -> Iterator[str]:
    """The config's own, the base's, and those that others it builds on have for the same value."""
    yield configs[name].comments.get(field, "")
    yield configs[BASE].comments.get(field, "")
    for other in configs[name].builds_on:
        if configs[other].values.get(field) == configs[name].values[field]:
            yield from _comments(field, configs, other)
