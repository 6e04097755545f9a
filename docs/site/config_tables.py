"""The reference of config fields: defaults from the configs, words from their comments."""

import ast
import importlib
import io
import pathlib
import sys
import tokenize
from collections.abc import Iterator, Mapping

BASE = "flow"


def config_tables(folder: pathlib.Path) -> str:
    """Return Markdown: all fields of the base config, then what each other one has of its own.

    Args:
        folder: of the package `configs`.
    """
    names = sorted(path.stem for path in folder.glob("[a-z]*.py"))
    comments = {name: field_comments((folder / f"{name}.py").read_text()) for name in names}
    sys.path.insert(0, str(folder.parent))  # mkdocs takes back what its hooks put there
    values = {name: dict(_fields(name)) for name in names}
    sys.path.remove(str(folder.parent))
    base = values[BASE]
    parts = [f"## configs/{BASE}.py", *_group_tables(base, comments, BASE)]
    for name in (name for name in names if name != BASE):
        own = {f: v for f, v in values[name].items() if f not in base or base[f] != v}
        header = ast.get_docstring(ast.parse((folder / f"{name}.py").read_text())) or ""
        parts += [f"## configs/{name}.py", header.splitlines()[0]]
        shared = len(values[name].keys() & base.keys())
        if shared:
            parts.append(f"Other than in `configs/{BASE}.py`, or not there:")
        parts += [_table(own, comments, name)] if own else []
    return "\n\n".join(parts)


def field_comments(source: str) -> dict[str, str]:
    """Return {GROUP.FIELD: comment} of a config's source.

    Args:
        source: Python that assigns to `config.GROUP.FIELD`, or to `GROUP.FIELD`. The comment is
            the one behind the value and the lines of comment above it.
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
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            group, _, field = ast.unparse(node.targets[0]).removeprefix("config.").rpartition(".")
            first = node.lineno
            while first - 1 in alone:
                first -= 1
            words = [alone[line] for line in range(first, node.lineno)]
            words += [behind[line] for line in (node.end_lineno,) if line in behind]
            if words and group:
                comments[f"{group}.{field}"] = " ".join(words)
    return comments


def _fields(name: str) -> Iterator[tuple[str, object]]:
    config = importlib.import_module(f"configs.{name}").get_config()
    for group in config:
        for field in config[group]:
            yield f"{group}.{field}", config[group][field]


def _group_tables(
    values: Mapping[str, object], comments: Mapping[str, Mapping[str, str]], name: str
) -> Iterator[str]:
    for group in dict.fromkeys(field.partition(".")[0] for field in values):
        own = {f: v for f, v in values.items() if f.startswith(f"{group}.")}
        yield f"### {group}"
        yield _table(own, comments, name)


def _table(
    values: Mapping[str, object], comments: Mapping[str, Mapping[str, str]], name: str
) -> str:
    rows = ["| field | value | |", "|---|---|---|"]
    for field, value in values.items():
        text = _comment(field, comments, name).replace("|", "\\|")
        shown = repr(value).replace("|", "\\|")
        rows.append(f"| `{field}` | `{shown}` | {text} |")
    return "\n".join(rows)


def _comment(field: str, comments: Mapping[str, Mapping[str, str]], name: str) -> str:
    """The config's own words, or the base's, or those of the first other one."""
    order = [name, BASE, *comments]
    return next((comments[other][field] for other in order if field in comments[other]), "")
