"""A write that fails leaves the old file whole, whatever writes it, and nothing beside it."""

import ast
import json
import os
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from tests.tiny import REPO
from tpdiff_jax.files import media
from tpdiff_jax.files.durable import write_durably, writing
from tpdiff_jax.files.json_files import write_json

VIDEO = np.zeros((2, 32, 32, 3), np.uint8)
WRITERS: dict[str, Callable[[pathlib.Path], None]] = {
    "bytes": lambda path: write_durably(path, b"new"),
    "text": lambda path: write_durably(path, "new"),
    "json": lambda path: write_json(path, {"new": 1}),
    "mp4": lambda path: media.write_mp4(path, VIDEO),
    "gif": lambda path: media.write_gif_grid(path, VIDEO[None]),
}


def fail(*_: object) -> None:
    raise OSError("no space left on device")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    kind: str, moment: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"file.{kind}"
    path.write_text("old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(os, moment, fail)
        WRITERS[kind](path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    WRITERS[kind](path)
    assert path.read_bytes() != b"old" and list(tmp_path.iterdir()) == [path]


def test_a_library_that_fails_half_way_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new" / "weights.safetensors"
    write_durably(path, "old")
    with pytest.raises(RuntimeError), writing(path) as temporary:
        temporary.write_text("hal")
        assert path.read_text() == "old"
        # One that a kill leaves is taken for no weights and no video.
        assert temporary.suffix == ".tmp" and temporary.name.startswith(".")
        raise RuntimeError
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_the_longest_name_that_a_file_can_have_can_be_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / ("x" * 251 + ".mp4")
    write_durably(path, "new")
    assert path.read_text() == "new"


def test_the_bytes_are_on_the_disk_before_they_have_their_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("sync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("name"), replace(a, b)))
    write_json(tmp_path / "a.json", {"x": float("nan")})
    assert calls == ["sync", "name", "sync"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None}


# ---- no other way to write

WAYS = {"write_text", "write_bytes", "save_file", "savez", "savefig", "save", "dump", "open"}
# Their first argument, or for methods of a path the path itself, where nothing can be half written.
HARMLESS = {"temporary", "file", "buffer"}
# Savers of folders, which verify them and name them at the end, or write each file as above.
HARMLESS |= {"checkpoints", "self._checkpointer", "published"}
# The saver of figures, in whose own file the call of `savefig` is looked at.
HARMLESS |= {"style"}
ALLOWED = {
    "bench/data.py": "a video that the same command makes and reads",
    "bench/decode.py": "videos that the same command makes and reads",
    "bench/memory.py": "a switch of the kernel",
    "tpdiff_jax/files/durable.py": "the one writer",
    "tpdiff_jax/files/media.py": "into memory",
}


def one_step_writes(source: str) -> list[str]:
    """Calls that write a file under its own name; `open` only where its mode says so."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        function = call.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        words = [ast.unparse(argument) for argument in call.args]
        modes = {"'w'", "'wb'", "'x'", "'xb'", "'w+'"}
        if name not in WAYS or (name == "open" and not modes & {*words, *_keywords(call)}):
            continue
        if not HARMLESS & {owner, *words[:2]}:
            found.append(ast.unparse(call))
    return found


def _keywords(call: ast.Call) -> list[str]:
    return [ast.unparse(keyword.value) for keyword in call.keywords]


def test_everything_that_is_read_later_is_written_through_one_writer() -> None:
    wrong = {
        f"{path.relative_to(REPO)}: {call}"
        for part in ("tpdiff_jax", "experiments", "bench", "launch")
        for path in sorted((REPO / part).rglob("*.py"))
        if str(path.relative_to(REPO)) not in ALLOWED
        for call in one_step_writes(path.read_text())
    }
    assert wrong == set()


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("(out / 'a').write_text(x)", 1),
        ("open(path, 'w')", 1),
        ("path.open(mode='wb')", 1),
        ("np.savez(path, **a)", 1),
        ("json.dump(a, open(path, 'w'))", 2),
        ("save_file(t, path)", 1),
        ("open(path, 'rb')", 0),
        ("open(path, 'a')", 0),
        ("save_file(t, temporary)", 0),
        ("temporary.open('wb')", 0),
        ("np.save(file, a)", 0),
    ],
)
def test_the_rule_sees_what_it_looks_for(line: str, count: int) -> None:
    assert len(one_step_writes(line)) == count
