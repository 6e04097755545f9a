"""A public name stands for one thing: no two modules of the package define the same one."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "tpdiff_jax"

ALLOWED = {
    "main": "the entry of every program that is run as python -m",
}


def defined_names(source):
    """Public names that a source text defines at its top level; imports define nothing."""
    names, blocks = set(), [ast.parse(source).body]
    while blocks:
        for node in blocks.pop():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign):
                names |= {n.id for t in node.targets for n in ast.walk(t) if _is_bound(n)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
            else:  # what stands under if, with or try
                inner = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
                inner += [handler.body for handler in getattr(node, "handlers", [])]
                blocks += [body for body in inner if isinstance(body, list)]
    return {name for name in names if not name.startswith("_")}


def _is_bound(node):
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def shared_names(sources):
    """{name: modules that define it} of names that several do."""
    modules = defaultdict(set)
    for module, source in sources.items():
        for name in defined_names(source):
            modules[name].add(module)
    return {name: sorted(where) for name, where in modules.items() if len(where) > 1}


def test_no_public_name_stands_for_two_things():
    sources = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    shared = shared_names(sources)
    assert {name: shared[name] for name in sorted(shared.keys() - ALLOWED.keys())} == {}
    assert ALLOWED.keys() <= shared.keys(), "an exception that is no longer needed"


def test_the_check_sees_every_kind_of_definition():
    source = """
import a, b as c
from d import e
A, (B, _C) = 1, (2, 3)
D: int = 4
if A:
    def f(): x = 1
else:
    F = 2
try:
    import g
except ImportError:
    G = None
class H:
    y = 1
async def i(): ...
A.z = 1
"""
    assert defined_names(source) == {"A", "B", "D", "f", "F", "G", "H", "i"}
    assert shared_names({"one": source, "two": "f = 1\n_C = 2\ng = e = 3"}) == {"f": ["one", "two"]}
