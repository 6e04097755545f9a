"""A copy of clips: what a kill left of one goes, and one that has lost files is made anew."""

import errno
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable

import pytest

from tests.tiny import REPO
from tpdiff_jax.clips import clip_copy
from tpdiff_jax.clips.clip_copy import local_clips
from tpdiff_jax.clips.record_manifest import SCHEMA, read_clip_manifest
from tpdiff_jax.files import file_lock

ADDRESS = "gs://bucket/clips"
SHARDS = [f"train-{i}.array_record" for i in range(3)]
BUCKETS = ("8x32x48", "4x48x32")
FETCH_FOR_EVER = """
import time
from tpdiff_jax.clips import clip_copy
class Store:
    def __init__(self, address):
        self.address = address
    def read(self, name):
        return b"another data set"
    def fetch_to(self, name, path):
        path.parent.mkdir()
        path.write_bytes(bytes(1000))
        print(path, flush=True)
        time.sleep(600)
clip_copy.ObjectStore = Store
clip_copy.local_clips("gs://bucket/others")
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def clips_of(prefix: str) -> dict[str, bytes]:
    """Objects of three shards and an empty prompt, with their manifest."""
    objects = {f"{prefix}{name}": f"{prefix}{name}".encode() for name in SHARDS}
    shards = [
        {
            **{"name": name, "split": "train", "num_clips": 1},
            **{"num_bytes": len(content), "sha256": sha256(content)},
        }
        for name, content in zip(SHARDS, objects.values(), strict=True)
    ]
    null = {"name": "null.record", "sha256": sha256(b"null")}
    fields = {"schema": SCHEMA, "shards": shards, "null_condition": null}
    manifest = json.dumps(fields).encode()
    return objects | {f"{prefix}null.record": b"null", f"{prefix}manifest.json": manifest}


def clips_of_buckets() -> dict[str, bytes]:
    objects = {name: c for bucket in BUCKETS for name, c in clips_of(f"{bucket}/").items()}
    hashes = {bucket: sha256(objects[f"{bucket}/manifest.json"]) for bucket in BUCKETS}
    entries = [{"name": name, "manifest_sha256": value} for name, value in hashes.items()]
    index = json.dumps({"schema": SCHEMA, "buckets": entries}).encode()
    return objects | {"manifest.json": index}


@pytest.fixture(params=[False, True], ids=["one shape", "buckets"])
def fetched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is fetched, from then on, from a bucket at ADDRESS."""
    objects, names = clips_of_buckets() if request.param else clips_of(""), []

    class Store:
        def __init__(self, address: str) -> None:
            self.address = address

        def read(self, name: str) -> bytes:
            return objects[name]

        def fetch_to(self, name: str, path: pathlib.Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(objects[name])
            names.append(name)

    monkeypatch.setattr(clip_copy, "ObjectStore", Store)
    return names


@pytest.fixture(autouse=True)
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The folder that copies lie in."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / f"tpdiff_jax_clips-{os.getuid()}"


def hidden(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_what_a_killed_process_was_fetching_goes_and_what_a_living_one_fetches_stays(
    own: pathlib.Path, fetched: list[str]
) -> None:
    command = [sys.executable, "-c", FETCH_FOR_EVER]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            half = pathlib.Path(process.stdout.readline().strip())
            assert half.is_relative_to(own)
            copy = pathlib.Path(local_clips(ADDRESS))
            assert half.is_file(), "its process is alive"
        finally:
            process.send_signal(signal.SIGKILL)
    assert half.is_file()
    (own / ".of_before_there_were_locks" / "clips").mkdir(parents=True)
    assert local_clips(ADDRESS) == str(copy)
    assert list(own.iterdir()) == [copy]
    read_clip_manifest(copy)


def test_where_nothing_can_be_locked_nothing_is_taken_for_abandoned(
    own: pathlib.Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_lock.fcntl, "flock", refuse)
    (own / ".another" / "clips").mkdir(parents=True)
    read_clip_manifest(pathlib.Path(local_clips(ADDRESS)))
    assert (own / ".another" / "clips").is_dir()
    assert [path for path in own.glob(".*") if path.is_dir()] == [own / ".another"]


def test_a_fetch_that_fails_leaves_nothing(
    own: pathlib.Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(clip_copy.ObjectStore, "fetch_to", fail)
    with pytest.raises(OSError, match="no connection"):
        local_clips(ADDRESS)
    assert list(own.iterdir()) == []


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [pathlib.Path.unlink, cut])
@pytest.mark.parametrize("name", [SHARDS[1], "manifest.json"])
def test_a_copy_that_has_lost_files_is_fetched_again(
    name: str, damage: Callable[[pathlib.Path], None], own: pathlib.Path, fetched: list[str]
) -> None:
    copy = pathlib.Path(local_clips(ADDRESS))
    number = len(fetched)
    damage(sorted(copy.rglob(name))[-1])
    assert local_clips(ADDRESS) == str(copy) and len(fetched) == 2 * number
    read_clip_manifest(copy)
    assert list(own.iterdir()) == [copy], "the old one is gone"
    assert local_clips(ADDRESS) == str(copy) and len(fetched) == 2 * number, "whole again"


def test_a_copy_without_its_empty_prompt_or_without_any_file_is_fetched_again(
    fetched: list[str],
) -> None:
    copy = pathlib.Path(local_clips(ADDRESS))
    number, prompt = len(fetched), next(copy.rglob("null.record"))
    prompt.unlink()
    assert local_clips(ADDRESS) == str(copy) and prompt.is_file()
    shutil.rmtree(copy)
    copy.mkdir()
    assert local_clips(ADDRESS) == str(copy) and len(fetched) == 3 * number
    read_clip_manifest(copy)
