"""Docstrings name what a function takes and what it gives back.

Every public function of the package with `MANY_PARAMETERS` or more has an `Args:` section that
names each; on the most-read pages (`READ_FIRST`) every public function with a parameter has one,
and `Returns:` where it returns something.
"""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.tiny import REPO

PACKAGE = REPO / "tpdiff_jax"
MANY_PARAMETERS = 3
READ_FIRST = (
    "train_step.py",
    "types.py",
    "method/*.py",
    "models/network.py",
    "data/dataset.py",
    "evals/measures.py",
    "run_log/sinks.py",
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


class PublicFunction(NamedTuple):
    """A function that others may call, or a method of such a class."""

    name: str  # path:Class.method
    parameters: tuple[str, ...]  # without self and cls
    returns: bool  # something other than None
    doc: str


def _parameters(function: Function, is_method: bool) -> tuple[str, ...]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args]
    decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
    if is_method and "staticmethod" not in decorators:
        named = named[1:]
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return tuple(argument.arg for argument in [*named, *arguments.kwonlyargs, *starred])


def _returns_something(function: Function) -> bool:
    annotation = function.returns
    return annotation is not None and ast.unparse(annotation) not in ("None", "NoReturn")


def public_functions(source: str, path: str) -> Iterator[PublicFunction]:
    """Yields the public functions and methods of public classes in a file's source."""

    def visit(body: list[ast.stmt], owner: str) -> Iterator[PublicFunction]:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from visit(node.body, f"{owner}{node.name}.")
            if isinstance(node, Function) and not node.name.startswith("_"):
                yield PublicFunction(
                    name=f"{path}:{owner}{node.name}",
                    parameters=_parameters(node, is_method=bool(owner)),
                    returns=_returns_something(node),
                    doc=ast.get_docstring(node) or "",
                )

    return visit(ast.parse(source).body, "")


def described_parameters(doc: str) -> set[str]:
    """Returns the names that the `Args:` section of a docstring describes."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", doc, re.M)
    if section is None:
        return set()
    return set(re.findall(r"^    \*{0,2}(\w+):", section[1], re.M))


def faults(function: PublicFunction, is_read_first: bool) -> list[str]:
    """Returns what the docstring of a function leaves out, one line each."""
    least = 1 if is_read_first else MANY_PARAMETERS
    if len(function.parameters) < least:
        return []
    missing = [p for p in function.parameters if p not in described_parameters(function.doc)]
    lines = [f"{function.name}: Args lacks {', '.join(missing)}"] if missing else []
    says_returns = re.search(r"^(Returns|Yields):", function.doc, re.M) is not None
    if is_read_first and function.returns and not says_returns:
        lines.append(f"{function.name}: no Returns")
    return lines


def _all_faults() -> list[str]:
    first = {path for pattern in READ_FIRST for path in PACKAGE.glob(pattern)}
    return [
        line
        for path in sorted(PACKAGE.rglob("*.py"))
        for function in public_functions(path.read_text(), str(path.relative_to(PACKAGE)))
        for line in faults(function, path in first)
    ]


def test_public_functions_describe_what_they_take() -> None:
    found = _all_faults()
    assert not found, "\n".join(found)


EXAMPLE = '''
def told(x, *, y=1, **rest) -> int:
    """Say it.

    Args:
        x: a number, or
            more: of them.
        y: another.
        **rest: others.

    Returns:
        y.
    """

def untold(x, y, z) -> int:
    """Say nothing.

    Args:
        x: a number.
    """

def short(x) -> int:
    """Take one."""

def _private(x, y, z): ...

class Open:
    def method(self, x, y) -> None: ...

    @staticmethod
    def static(x, y, z) -> None: ...

class _Hidden:
    def method(self, x, y, z) -> None: ...
'''


def test_the_check_sees_what_is_left_out() -> None:
    functions = list(public_functions(EXAMPLE, "f.py"))
    found = {f.name: (faults(f, False), faults(f, True)) for f in functions}
    assert found == {
        "f.py:told": ([], []),
        "f.py:untold": (
            ["f.py:untold: Args lacks y, z"],
            ["f.py:untold: Args lacks y, z", "f.py:untold: no Returns"],
        ),
        "f.py:short": ([], ["f.py:short: Args lacks x", "f.py:short: no Returns"]),
        "f.py:Open.method": ([], ["f.py:Open.method: Args lacks x, y"]),
        "f.py:Open.static": (["f.py:Open.static: Args lacks x, y, z"],) * 2,
    }


def test_the_most_read_pages_exist() -> None:
    for pattern in READ_FIRST:
        assert list(PACKAGE.glob(pattern)), pattern
