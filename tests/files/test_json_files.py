"""JSON from a disk: bounded, of the expected kind, or one line that says what is wrong."""

import os
import pathlib

import pytest

from tpdiff_jax.files import json_files
from tpdiff_jax.files.json_files import parse_json, read_json
from tpdiff_jax.files.json_schema import (
    ANY,
    COUNT,
    NUMBER,
    TEXT,
    Closed,
    ListOf,
    Maybe,
    TableOf,
    check_json,
)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_what_is_nested_no_deeper_than_allowed_is_read() -> None:
    assert parse_json(nested(64)) == eval_lists(64)
    assert parse_json('{"a": ' + nested(63) + "}") == {"a": eval_lists(63)}
    assert parse_json(b"3") == 3 and parse_json('"a"') == "a"


def eval_lists(depth: int) -> list:
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "text",
    [
        nested(65),
        nested(100_000),
        '{"a":' * 90_000 + "1" + "}" * 90_000,
        '{"a": ' + nested(64) + "}",
        "[" * 200_000,
        "",
        "{",
        '{"a": 1}x',
        "1" * 5000,
        b"\xff\xfe\xff",
        b"{\0}",
    ],
)
def test_anything_else_is_one_short_line(text: str | bytes) -> None:
    with pytest.raises(ValueError) as error:
        parse_json(text, where="notes.json")
    assert str(error.value).startswith("notes.json ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_file_that_is_too_long_a_pipe_or_a_folder_is_not_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "long.json").write_text("{}" + " " * 100)
    monkeypatch.setattr(json_files, "MAX_JSON_BYTES", 100)
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to("nowhere")
    (tmp_path / "loop.json").symlink_to("loop.json")
    for name in ("long", "pipe", "folder", "link", "loop", "none"):
        with pytest.raises(ValueError, match=rf"{name}\.json is not a readable JSON file"):
            read_json(tmp_path / f"{name}.json")


SCHEMA = {"count": COUNT, "rate?": NUMBER, "names": TableOf(ListOf(TEXT)), "left?": Maybe(TEXT)}


@pytest.mark.parametrize(
    "value",
    [
        {"count": 0, "names": {}},
        {"count": 2**63 - 1, "names": {"a": []}, "rate": 1, "left": None, "other": [1]},
        {"count": 1, "names": {"a": ["b"]}, "rate": -1.5, "left": "x"},
    ],
)
def test_what_fits_passes(value: dict) -> None:
    check_json(value, SCHEMA, "f")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"count": -1}, "f: count is -1; allowed: a whole number from 0"),
        ({"count": "3"}, "f: count is '3'; allowed: a whole number from 0"),
        ({"count": 1.0}, "f: count is 1.0; allowed: a whole number from 0"),
        ({"count": True}, "f: count is True; allowed: a whole number from 0"),
        ({"count": 2**63}, "f: count is 9223372036854775808; allowed: a whole number from 0"),
        ({"count": 10**5000}, "f: count is a very large number; allowed: a whole number from 0"),
        ({"rate": float("nan")}, "f: rate is nan; allowed: a number"),
        ({"rate": 10**400}, "f: rate is 1000"),
        ({"rate": None}, "f: rate is None; allowed: a number"),
        ({"names": []}, "f: names is a list of 0; allowed: an object"),
        ({"names": {"a": "b"}}, "f: names: a is 'b'; allowed: a list"),
        ({"names": {"a": ["b", 1]}}, "f: names: a[1] is 1; allowed: text"),
        ({"left": {}}, "f: left is an object of 0; allowed: text"),
    ],
)
def test_the_first_place_that_does_not_fit_is_named(change: dict, told: str) -> None:
    with pytest.raises(ValueError) as error:
        check_json({"count": 1, "names": {}} | change, SCHEMA, "f")
    assert str(error.value).startswith(told) and len(str(error.value)) < 200


def test_missing_members_and_those_too_many_are_named() -> None:
    with pytest.raises(ValueError, match="f lacks 'names'"):
        check_json({"count": 1}, SCHEMA, "f")
    with pytest.raises(ValueError, match="f has 'b', which nobody here has written"):
        check_json({"a": 1, "b": 2}, Closed({"a": ANY}), "f")
    for value in ([], None, "text", 3):
        with pytest.raises(ValueError, match="allowed: an object"):
            check_json(value, SCHEMA, "f")
