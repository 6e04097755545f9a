"""docs/reliability.md links every promise to tests, and every test that it names exists."""

import ast
import re

import pytest

from tests.tiny import REPO

PAGE = (REPO / "docs" / "reliability.md").read_text()
ROWS = {int(m[1]): m[0] for m in re.finditer(r"^\| P(\d+) \|.*$", PAGE, re.MULTILINE)}
TESTS = sorted(set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", PAGE)))


def functions_of(path):
    """Names of the functions of a file."""
    tree = ast.parse((REPO / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_a_test_that_the_page_names_exists(path, name):
    assert name in functions_of(path)


@pytest.mark.parametrize("row", ROWS)
def test_every_promise_has_a_test(row):
    assert re.search(r"tests/[\w/]+\.py::test_\w+", ROWS[row])


def test_no_promise_of_the_page_gets_lost():
    assert set(range(1, 16)) <= set(ROWS)
